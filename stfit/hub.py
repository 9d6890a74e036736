"""The Hub, asked with a patience that ends: commits of repositories, their listings, and files that arrived whole.

Everything that stfit loads from the Hub comes through here. The Hub's own client waits for ever where a server is
silent, retries only some of its requests, takes a damaged file of the right size for a whole one, and falls back on an
older copy without a word; each is mended below. Files lie in the client's own cache, so that other tools find them.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from hashlib import sha1, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from stfit.errors import HubError, Problem, ResourceError, StfitError, did_you_mean
from stfit.lazy import lazy

if TYPE_CHECKING:
    import huggingface_hub as client
    from huggingface_hub import constants
else:
    client = lazy("huggingface_hub")
    constants = lazy("huggingface_hub.constants")

log = logging.getLogger("stfit")

Kind = Literal["model", "dataset"]
T = TypeVar("T")

COMMIT = re.compile("[0-9a-f]{40}")
QUERY = re.compile(r"\?\S+")
"""Of an address in a message: it may hold a signature."""
PAUSES = (0.5, 1, 2)
"""Seconds before each further try."""
GIVE_UP = 20
"""Seconds after which there is no further try."""
LONGEST_WAIT = 20
"""Seconds that a server may ask to wait; one that asks for more is not waited for."""
XET_PATIENCE = {
    "CONNECT_TIMEOUT": "{}s",
    "READ_TIMEOUT": "{}s",
    "RETRY_MAX_ATTEMPTS": "3",
    "RETRY_BASE_DELAY": "500ms",
    "RETRY_MAX_DURATION": "20s",
}
"""The same for Xet (https://docs.rs/xet-runtime, config::groups::client), whose own patience is six minutes."""
OUT_OF_REACH = "hub-out-of-reach"
"""Code of a problem that may be over later."""
REFUSED = "hub-refused"
"""Code of a problem that stays until something is changed."""
NOT_THERE = "hub-not-there"
"""Code of a repository that is missing, or not shown to this account."""


def find_commit(kind: Kind, id: str, revision: str | None) -> str:
    """The commit that a branch, tag or short commit of a repository is now; offline, what it was when last asked for.

    A whole commit stays what it is, unasked. Raises HubError where the Hub can't be reached, or shows no such
    repository or revision.
    """
    if COMMIT.fullmatch(revision or ""):
        return str(revision)
    seen = repository_folder(kind, id) / "refs" / (revision or "main")
    if constants.HF_HUB_OFFLINE:
        if seen.is_file():
            return seen.read_text(encoding="utf-8").strip()
        raise HubError(not_here(kind, id))
    found = ask(lambda: client.HfApi().repo_info(id, repo_type=kind, revision=revision), kind, id, revision)
    if found.id != id:
        log.warning("the %s `%s` is called `%s` now", kind, id, found.id)
    commit = str(found.sha)
    if commit != revision:
        keep(seen, commit)
    return commit


def find_head(kind: Kind, id: str) -> str | None:
    """The newest commit of a repository; None where the Hub shows no such repository. Raises HubError."""
    try:
        return find_commit(kind, id, None)
    except HubError as error:
        if any(problem.code == NOT_THERE for problem in error.problems):
            return None
        raise


def with_owner(id: str) -> str:
    """The id of a model's repository, which is the token's account's where no owner is written."""
    if "/" in id:
        return id
    return f"{ask(lambda: client.HfApi().whoami()['name'], 'model', id)}/{id}"


def list_files(kind: Kind, id: str, commit: str) -> list[str]:
    """Paths of all files of a commit; kept, as they never change. Raises HubError."""
    kept = Path(client.cached_assets_path("stfit", "listings", kind)) / id.replace("/", "--") / f"{commit}.json"
    if kept.is_file():
        listed: list[str] = json.loads(kept.read_text(encoding="utf-8"))
        return listed
    if constants.HF_HUB_OFFLINE:
        raise HubError(not_here(kind, id))
    listed = ask(lambda: client.HfApi().list_repo_files(id, repo_type=kind, revision=commit), kind, id, commit)
    keep(kept, json.dumps(listed))
    return listed


def keep(path: Path, text: str) -> None:
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
            download(kind, id, commit, patterns)
        damaged = [path for path in paths if not is_whole(folder / path)]
        if not damaged:
            return folder
        for path in damaged:
            log.warning("%s of the %s `%s` is damaged, and fetched again", path, kind, id)
            (folder / path).resolve().unlink(missing_ok=True)
    raise HubError(Problem(f"{', '.join(damaged)} of the {kind} `{id}` arrives damaged, twice", OUT_OF_REACH))


def download(kind: Kind, id: str, commit: str, patterns: Sequence[str]) -> None:
    """Files of a commit into the cache."""
    if constants.HF_HUB_OFFLINE:
        raise HubError(not_here(kind, id))
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    log.info("fetching the %s `%s` at %s", kind, id, commit[:8])
    ask(
        lambda: client.snapshot_download(id, repo_type=kind, revision=commit, allow_patterns=list(patterns)),
        kind,
        id,
        commit,
    )


def is_whole(path: Path) -> bool:
    """Whether a cached file is what its name in the cache says: the sha256 of an LFS file, or a git blob's sha1."""
    blob = path.resolve()
    if not blob.is_file():
        return False
    digest = sha256() if len(blob.name) == 64 else sha1(b"blob %d\0" % blob.stat().st_size)
    with blob.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest() == blob.name


def repository_folder(kind: Kind, id: str) -> Path:
    """Where the client's cache keeps a repository (https://huggingface.co/docs/huggingface_hub/guides/manage-cache)."""
    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{id.replace('/', '--')}"


def snapshot_folder(kind: Kind, id: str, commit: str) -> Path:
    """Where it keeps the files of a commit."""
    return repository_folder(kind, id) / "snapshots" / commit


# --- asking -----------------------------------------------------------------------------------------------------------


def ask(request: Callable[[], T], kind: Kind, id: str, revision: str | None = None) -> T:
    """What `request` gives, tried again after what may be over soon; everything that goes wrong is one HubError."""
    be_patient()
    started = time.monotonic()
    for pause in (*PAUSES, None):
        try:
            return request()
        except StfitError:
            raise
        except Exception as error:  # the client lets through what its HTTP library, and Xet's, may raise
            if pause is None or not is_passing(error) or time.monotonic() - started > GIVE_UP:
                raise explain(error, kind, id, revision) from error
            time.sleep(max(pause, seconds_to_wait(error)))
    raise AssertionError  # the last pause is None


@lru_cache(maxsize=1)
def be_patient() -> None:
    """Give the client's requests a time limit, which many have not, and an end to its waiting for a busy server.

    HF_HUB_DOWNLOAD_TIMEOUT says after how many seconds of silence to end; what changes a repository may take longer.
    """
    from huggingface_hub.utils._http import default_client_factory

    def limit(request: Any) -> None:
        most = constants.HF_HUB_DOWNLOAD_TIMEOUT * (1 if request.method in ("GET", "HEAD") else 6)
        limits = request.extensions.setdefault("timeout", {})
        for part in ("connect", "read", "write", "pool"):
            limits[part] = min(limits.get(part) or most, most)

    def refuse_long_wait(response: Any) -> None:
        if response.status_code == 429 and (seconds := retry_after(response)) > LONGEST_WAIT:
            raise HubError(Problem(f"the Hub's rate limit is reached: it asks to wait {seconds} s", OUT_OF_REACH))

    def factory() -> Any:
        made = default_client_factory()
        made.event_hooks["request"].append(limit)
        made.event_hooks.setdefault("response", []).append(refuse_long_wait)
        return made

    client.set_client_factory(factory)
    for name, value in XET_PATIENCE.items():  # its part is in Rust, and knows the environment only
        os.environ.setdefault(f"HF_XET_CLIENT_{name}", value.format(constants.HF_HUB_DOWNLOAD_TIMEOUT))


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it: the client often wraps the reason into something else."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def response_of(error: BaseException) -> Any:
    """The Hub's answer that an error is about, if it answered."""
    return next((found for one in causes_of(error) if (found := getattr(one, "response", None)) is not None), None)


def denial_of(error: BaseException) -> str | None:
    """Why the cache takes no file, where that is what went wrong."""
    denials = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
    return next((one.strerror for one in causes_of(error) if isinstance(one, OSError) and one.errno in denials), None)


def retry_after(response: Any) -> int:
    """Seconds that a server asks to wait."""
    told = response.headers.get("Retry-After", "")
    return int(told) if told.isdigit() else 0


def seconds_to_wait(error: Exception) -> int:
    """The same, of an error."""
    response = response_of(error)
    return retry_after(response) if response is not None else 0


def is_passing(error: Exception) -> bool:
    """Whether the same request may succeed soon: no answer, a broken one, or one that blames the server."""
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    if any(isinstance(one, HFValidationError | OfflineModeIsEnabled) for one in causes_of(error)):
        return False
    if denial_of(error):
        return False
    response = response_of(error)
    return response is None or response.status_code in (408, 429) or response.status_code >= 500


def explain(error: Exception, kind: Kind, id: str, revision: str | None) -> StfitError:
    """One sentence for what went wrong, and what to do."""
    from huggingface_hub import errors

    causes = list(causes_of(error))
    if denial := denial_of(error):
        return ResourceError(f"the {kind} `{id}` can't be kept in {constants.HF_HUB_CACHE}: {denial}; HF_HOME names it")
    if any(isinstance(one, errors.HFValidationError) for one in causes):
        message = f"`{id}` is no id of a {kind} on the Hub, like `owner/name`; a path starts with ./ or /"
        return HubError(Problem(message, REFUSED))
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in causes):
        return HubError(not_here(kind, id))
    response = response_of(error)
    if response is None:
        return HubError(Problem(f"the Hub ({constants.ENDPOINT}) {no_answer(causes)}: {kind} `{id}`", OUT_OF_REACH))
    if response.status_code == 429:
        return HubError(Problem(f"the Hub's rate limit is reached: {kind} `{id}`; try again later", OUT_OF_REACH))
    if response.status_code >= 500:
        message = f"the Hub is in trouble (status {response.status_code}): {kind} `{id}`; try again later"
        return HubError(Problem(message, OUT_OF_REACH))
    code = NOT_THERE if errors.RepositoryNotFoundError in map(type, causes) else REFUSED
    return HubError(Problem(refusal(causes, response, kind, id, revision), code))


def not_here(kind: Kind, id: str) -> Problem:
    """What is said offline."""
    message = f"HF_HUB_OFFLINE is set, and the {kind} `{id}` is not all here: `stfit fetch RECIPE` gets it, online"
    return Problem(message, OUT_OF_REACH)


def no_answer(causes: list[BaseException]) -> str:
    """How a request ended that was not answered."""
    names = " ".join(type(one).__name__ for one in causes)
    if "Timeout" in names:
        return f"did not answer within {constants.HF_HUB_DOWNLOAD_TIMEOUT} s"
    if "ConnectError" in names:
        return "can't be reached"
    reason = str(causes[-1]).strip().splitlines() or [""]
    return f"broke off ({type(causes[-1]).__name__}: {QUERY.sub('', reason[0])[:200]})"


def refusal(causes: list[BaseException], response: Any, kind: Kind, id: str, revision: str | None) -> str:
    """Why the Hub says no. Missing and forbidden repositories are told apart as far as the Hub does."""
    from huggingface_hub import errors

    has_token = client.get_token() is not None
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    refused = {type(one) for one in causes}
    if errors.GatedRepoError in refused:
        ask_for_it = f"ask for access at {constants.ENDPOINT}/{'' if kind == 'model' else 'datasets/'}{id}"
        return f"the {kind} `{id}` is gated: {ask_for_it if has_token else f'{log_in}, and {ask_for_it}'}"
    if errors.RepositoryNotFoundError in refused:
        unless = "this account may not see it" if has_token else f"it is private: then {log_in}"
        return f"the Hub shows no {kind} `{id}`: it is spelt otherwise, or {unless}"
    if errors.RevisionNotFoundError in refused:
        return f"the {kind} `{id}` has no revision `{revision}`{hint_of_revision(kind, id, revision or '')}"
    if response.status_code == 401:
        return f"the Hub does not accept the token: {log_in}"
    said = response.headers.get("X-Error-Message") or f"status {response.status_code}"
    return f"the Hub refuses the {kind} `{id}`: {said}"


def hint_of_revision(kind: Kind, id: str, revision: str) -> str:
    """The nearest branch or tag, or all of a few."""
    try:
        refs = client.HfApi().list_repo_refs(id, repo_type=kind)
    except Exception:  # a hint is not worth a second error
        return ""
    hint = did_you_mean(revision, [ref.name for ref in (*refs.branches, *refs.tags)])
    return f"; {hint}" if hint else ""
