"""What stfit loads from the Hub: commits of repositories, their listings, and files that arrived whole.

The Hub's own client takes a damaged file of the right size for a whole one, and falls back on an older copy without a
word; both are mended below. Files lie in the client's own cache, so that other tools find them.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from hashlib import sha1, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stfit.errors import HubError, Problem, ResourceError
from stfit.hub.retry import LOG_IN, NOT_THERE, OUT_OF_REACH, Kind, ask, meter, not_here
from stfit.lazy import lazy

if TYPE_CHECKING:
    import huggingface_hub as client
    from huggingface_hub import constants
else:
    client = lazy("huggingface_hub")
    constants = lazy("huggingface_hub.constants")

log = logging.getLogger("stfit")

COMMIT = re.compile("[0-9a-f]{40}")


def find_account(repo: str) -> dict[str, Any]:
    """The account whose token is used, to push to `repo` or to see what is there. Raises HubError."""
    if client.get_token() is None:
        raise HubError(f"`{repo}` needs a token: {LOG_IN}")
    account: dict[str, Any] = ask(lambda: client.HfApi().whoami(), "model", repo)
    return account


def find_commit(kind: Kind, id: str, revision: str | None) -> str:
    """The commit that a branch, tag or short commit of a repository is now; offline, what it was when last asked for.

    A whole commit stays what it is, unasked. Raises HubError where the Hub can't be reached, or shows no such
    repository or revision.
    """
    if COMMIT.fullmatch(revision or ""):
        return str(revision)
    seen = _repository_folder(kind, id) / "refs" / (revision or "main")
    if constants.HF_HUB_OFFLINE:
        if seen.is_file():
            return seen.read_text(encoding="utf-8").strip()
        raise HubError(not_here(kind, id))
    commit = str(look_up(kind, id, revision).sha)
    _keep(seen, commit)
    return commit


def look_up(kind: Kind, id: str, revision: str | None = None) -> Any:
    """What the client knows of a repository as it is now (its ModelInfo or DatasetInfo). Raises HubError."""
    found = ask(lambda: client.HfApi().repo_info(id, repo_type=kind, revision=revision), kind, id, revision)
    if found.id != id:
        log.warning("the %s `%s` is called `%s` now", kind, id, found.id)
    return found


def find_newest(repo: str) -> str | None:
    """The newest commit of a model's repository; None where the Hub shows no such repository. Raises HubError."""
    try:
        return find_commit("model", repo, None)
    except HubError as error:
        if any(problem.code == NOT_THERE for problem in error.problems):
            return None
        raise


def with_owner(id: str) -> str:
    """The id of a model's repository, which is the token's account's where no owner is written."""
    return id if "/" in id else f"{find_account(id)['name']}/{id}"


def list_files(kind: Kind, id: str, commit: str) -> list[str]:
    """Paths of all files of a commit; kept, as they never change. Raises HubError."""
    kept = Path(client.cached_assets_path("stfit", "listings", kind)) / id.replace("/", "--") / f"{commit}.json"
    if kept.is_file():
        listed: list[str] = json.loads(kept.read_text(encoding="utf-8"))
        return listed
    if constants.HF_HUB_OFFLINE:
        raise HubError(not_here(kind, id))
    listed = ask(lambda: client.HfApi().list_repo_files(id, repo_type=kind, revision=commit), kind, id, commit)
    _keep(kept, json.dumps(listed))
    return listed


def _keep(path: Path, text: str) -> None:
    """Write a file of the cache, whole or not at all. Raises ResourceError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise ResourceError(f"{path} can't be written: {error.strerror}; HF_HOME names the folder") from error


def fetch(kind: Kind, id: str, commit: str, patterns: Sequence[str]) -> Path:
    """Folder that holds the files of a commit whose paths fit one of `patterns`, each compared with its hash.

    Raises HubError where they can't be had whole, ResourceError where there is no room for them.
    """
    paths = [path for path in list_files(kind, id, commit) if any(fnmatch(path, pattern) for pattern in patterns)]
    folder = snapshot_folder(kind, id, commit)
    for _ in range(2):
        if not all((folder / path).is_file() for path in paths):
            _download(kind, id, commit, patterns)
        damaged = [path for path in paths if not _is_whole(folder / path)]
        if not damaged:
            return folder
        for path in damaged:
            log.warning("%s of the %s `%s` is damaged, and fetched again", path, kind, id)
            (folder / path).resolve().unlink(missing_ok=True)
    raise HubError(Problem(f"{', '.join(damaged)} of the {kind} `{id}` arrives damaged, twice", OUT_OF_REACH))


def _download(kind: Kind, id: str, commit: str, patterns: Sequence[str]) -> None:
    """Files of a commit into the cache."""
    if constants.HF_HUB_OFFLINE:
        raise HubError(not_here(kind, id))
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    log.info("fetching the %s `%s` at %s", kind, id, commit[:8])
    ask(
        lambda: client.snapshot_download(
            id, repo_type=kind, revision=commit, allow_patterns=list(patterns), tqdm_class=meter()
        ),
        kind,
        id,
        commit,
    )


def _is_whole(path: Path) -> bool:
    """Whether a cached file is what its name in the cache says: the sha256 of an LFS file, or a git blob's sha1."""
    blob = path.resolve()
    if not blob.is_file():
        return False
    digest = sha256() if len(blob.name) == 64 else sha1(b"blob %d\0" % blob.stat().st_size)
    with blob.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest() == blob.name


def _repository_folder(kind: Kind, id: str) -> Path:
    """Where the client's cache keeps a repository (https://huggingface.co/docs/huggingface_hub/guides/manage-cache)."""
    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{id.replace('/', '--')}"


def snapshot_folder(kind: Kind, id: str, commit: str) -> Path:
    """Where it keeps the files of a commit."""
    return _repository_folder(kind, id) / "snapshots" / commit
