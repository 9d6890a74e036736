"""Downloads from the Hub: commits of repositories, their listings, and files that are verified by their hash.

The Hub's client accepts a damaged file of the right size, and silently falls back to an older copy; this module does
neither. Files are stored in the client's own cache, so other tools find them.
"""

import errno
import json
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatch
from functools import cache
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

from stfit.errors import HubError, Problem, ResourceError
from stfit.hub.client import client, constants
from stfit.hub.explain import LOG_IN, NOT_THERE, OUT_OF_REACH, Kind, not_cached
from stfit.hub.retry import call_with_retries, progress_meter
from stfit.io.atomic import atomic_cache_entry
from stfit.io.hashing import hash_file

COMMIT = re.compile("[0-9a-f]{40}")
log = logging.getLogger("stfit")


def find_account(repo: str) -> dict[str, Any]:
    if client.get_token() is None:
        raise HubError(f"`{repo}` needs a token: {LOG_IN}")
    return call_with_retries(lambda: client.HfApi().whoami(), "model", repo)


def find_commit(kind: Kind, id: str, revision: str | None) -> str:
    """Offline, the commit that was last seen. A full commit hash is returned as it is, without a request."""
    if COMMIT.fullmatch(revision or ""):
        return str(revision)
    seen = _repository_folder(kind, id) / "refs" / (revision or "main")
    if constants.HF_HUB_OFFLINE:
        if seen.is_file() and COMMIT.fullmatch(commit := seen.read_text(encoding="utf-8", errors="replace").strip()):
            return commit
        raise HubError(not_cached(kind, id))
    commit = str(look_up(kind, id, revision).sha)
    _keep(seen, commit)
    return commit


def look_up(kind: Kind, id: str, revision: str | None = None) -> Any:
    """The client's ModelInfo or DatasetInfo of a repository. Raises HubError."""
    info = call_with_retries(
        lambda: client.HfApi().repo_info(id, repo_type=kind, revision=revision), kind, id, revision
    )
    if info.id != id:
        log.warning("the %s `%s` was renamed to `%s`", kind, id, info.id)
    return info


def find_newest(repo: str) -> str | None:
    try:
        return find_commit("model", repo, None)
    except HubError as error:
        if any(problem.code == NOT_THERE for problem in error.problems):
            return None
        raise


def with_owner(id: str) -> str:
    return id if "/" in id else f"{find_account(id)['name']}/{id}"


def list_files(kind: Kind, id: str, commit: str) -> list[str]:
    cached = Path(client.cached_assets_path("stfit", "listings", kind)) / id.replace("/", "--") / f"{commit}.json"
    with suppress(OSError, ValueError):  # missing or damaged
        return list(json.loads(cached.read_text(encoding="utf-8")))
    if constants.HF_HUB_OFFLINE:
        raise HubError(not_cached(kind, id))
    paths = call_with_retries(
        lambda: client.HfApi().list_repo_files(id, repo_type=kind, revision=commit), kind, id, commit
    )
    _keep(cached, json.dumps(paths))
    return paths


def _keep(path: Path, text: str) -> None:
    """Cache a text. A cache that may only be read serves as well, as long as it holds the files."""
    with suppress(OSError):
        if path.read_text(encoding="utf-8").strip() == text:
            return
    try:
        with atomic_cache_entry(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            log.debug("%s can't be written: %s", path, error.strerror)
        else:
            raise ResourceError(f"{path} can't be written: {error.strerror}; set HF_HOME to another folder") from error


def download_files(kind: Kind, id: str, commit: str, patterns: Sequence[str]) -> Path:
    """The folder with those files of a commit whose paths match one of `patterns`, each verified by its hash."""
    paths = [path for path in list_files(kind, id, commit) if any(fnmatch(path, pattern) for pattern in patterns)]
    folder = snapshot_folder(kind, id, commit)
    for _ in range(2):
        if not all((folder / path).is_file() for path in paths):
            _download(kind, id, commit, patterns)
        damaged = [path for path in paths if not _verify_hash(folder / path)]
        if not damaged:
            return folder
        for path in damaged:
            log.warning("%s of the %s `%s` is damaged, downloading it again", path, kind, id)
            (folder / path).resolve().unlink(missing_ok=True)
    raise HubError(Problem(f"{', '.join(damaged)} of the {kind} `{id}` arrived damaged twice", OUT_OF_REACH))


def _download(kind: Kind, id: str, commit: str, patterns: Sequence[str]) -> None:
    if constants.HF_HUB_OFFLINE:
        raise HubError(not_cached(kind, id))
    log.info("downloading the %s `%s` at %s", kind, id, commit[:8])
    call_with_retries(
        lambda: client.snapshot_download(
            id, repo_type=kind, revision=commit, allow_patterns=list(patterns), tqdm_class=progress_meter()
        ),
        kind,
        id,
        commit,
    )


def _verify_hash(path: Path) -> bool:
    blob = path.resolve()
    if not blob.is_file():
        return False
    state = blob.stat()
    return _has_hash_of_name(blob, state.st_size, state.st_mtime_ns)


@cache
def _has_hash_of_name(blob: Path, size: int, _changed_at: int) -> bool:
    """The client names a blob in its cache by the file's sha256 (LFS) or git blob sha1. Read once in a process."""
    digest = sha256() if len(blob.name) == 64 else sha1(b"blob %d\0" % size)
    return hash_file(blob, digest) == blob.name


def _repository_folder(kind: Kind, id: str) -> Path:
    # https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{id.replace('/', '--')}"


def snapshot_folder(kind: Kind, id: str, commit: str) -> Path:
    return _repository_folder(kind, id) / "snapshots" / commit
