"""Ask the Hub with a patience that ends, and say in one sentence what went wrong.

The Hub's own client waits for ever where a server is silent, or sends a byte now and then, and retries only some of its
requests. Here a request has a time limit for every answer, a few tries, and an end where nothing moves any more.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import lru_cache
from importlib import import_module
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

QUERY = re.compile(r"\?\S+")
"""Of an address in a message: it may hold a signature."""
XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")
PAUSES = (0.5, 1, 2)
"""Seconds before each further try."""
GIVE_UP = 35
"""Seconds since anything good was heard, after which there is no further try."""
LONGEST_WAIT = 20
"""Seconds that a server may ask to wait; one that asks for more is not waited for."""
LEAST = 32 * 1024
"""Bytes that have to come or go while the patience lasts; an answer counts as as many."""
UNSEEN = 64 * 1024
"""Bytes a second that an upload is given whose progress can't be seen."""
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
NO_REVISION = "hub-no-revision"
"""Code of a branch, tag or commit that a repository does not have."""
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class StandstillError(Exception):
    """Nothing moves between here and the Hub."""


class Traffic:
    """What came and went in this process, as far as it is seen, and when a good answer was last heard."""

    def __init__(self) -> None:
        self.bytes = 0
        self.heard = 0.0

    def sent(self, count: int) -> None:
        """Bytes went."""
        self.bytes += count

    def received(self, count: int) -> None:
        """Bytes of a good answer came."""
        self.bytes += count
        self.heard = time.monotonic()


traffic = Traffic()
left_behind = threading.Event()
"""Set once a request was left behind, which keeps a process alive that does not end in the hard way."""


def ask(
    request: Callable[[], T],
    kind: Kind,
    id: str,
    revision: str | None = None,
    done: Callable[[], T | None] = lambda: None,
    unseen: int = 0,
) -> T:
    """What `request` gives, tried again after what may be over soon; everything that goes wrong is one HubError.

    `done` looks after a failure whether it came about all the same. Of `unseen` bytes that are to be sent, nobody can
    say how far they are.
    """
    _be_patient()
    traffic.heard = time.monotonic()
    for pause in (*PAUSES, None):
        try:
            return _in_time(request, unseen)
        except Exception as error:  # the client lets through what its HTTP library, and Xet's, may raise
            if told := next((one for one in _causes_of(error) if isinstance(one, StfitError)), None):
                raise told from told.__cause__
            quiet = time.monotonic() - traffic.heard
            if (found := done()) is not None:
                return found
            if pause is None or not _is_passing(error) or quiet > GIVE_UP:
                raise _explain(error, kind, id, revision) from error
            time.sleep(max(pause, _seconds_to_wait(error)))
    raise AssertionError  # the last pause is None


def _in_time(request: Callable[[], T], unseen: int) -> T:
    """What `request` gives. Raises StandstillError where too little moves while the patience lasts.

    It runs in a thread of its own, since there is no other way to leave a client, in Python or Rust, that waits.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(request())
        except BaseException as error:  # handed to the one who asks
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True, name="hub").start()
    moved, since = traffic.bytes, time.monotonic()
    try:
        while not wait([outcome], timeout=1).done:
            if traffic.bytes - moved >= LEAST:
                moved, since = traffic.bytes, time.monotonic()
            elif time.monotonic() - since > _patience() + unseen / UNSEEN:
                raise StandstillError
    except BaseException:  # a signal, too
        left_behind.set()
        raise
    return outcome.result()


def _patience() -> int:
    """Seconds in which something has to move."""
    return 6 * constants.HF_HUB_DOWNLOAD_TIMEOUT


@lru_cache(maxsize=1)
def _be_patient() -> None:
    """Give the client's requests a time limit, which many have not, count what moves, and end its long waits."""
    from huggingface_hub.utils._http import default_client_factory

    def factory() -> Any:
        made = default_client_factory()
        made.event_hooks["request"].append(_limit)
        made.event_hooks.setdefault("response", []).append(_listen)
        return made

    client.set_client_factory(factory)
    for name, value in XET_PATIENCE.items():  # its part is in Rust, and knows the environment only
        os.environ.setdefault(f"HF_XET_CLIENT_{name}", value.format(constants.HF_HUB_DOWNLOAD_TIMEOUT))


def _limit(request: Any) -> None:
    """Before a request goes: how long its answer may take; what changes a repository may take longer."""
    most = constants.HF_HUB_DOWNLOAD_TIMEOUT * (1 if request.method in ("GET", "HEAD") else 3)
    limits = request.extensions.setdefault("timeout", {})
    for part in ("connect", "read", "write", "pool"):
        limits[part] = min(limits.get(part) or most, most)
    request.stream = _counted_stream()(request.stream, traffic.sent)


def _listen(response: Any) -> None:
    """When an answer begins. Raises HubError for one that asks to wait longer than anybody would."""
    if response.status_code == 429 and (seconds := _retry_after(response)) > LONGEST_WAIT:
        raise HubError(Problem(f"the Hub's rate limit is reached: it asks to wait {seconds} s", OUT_OF_REACH))
    if response.status_code < 429:
        traffic.received(LEAST)
        response.stream = _counted_stream()(response.stream, traffic.received)


@lru_cache(maxsize=1)
def _counted_stream() -> Any:
    """The class of a body on its way that is counted; of the client's HTTP library, by its name of the day."""
    from huggingface_hub.utils import _http

    library: Any = vars(_http).get("httpx2") or vars(_http)["httpx"]

    class Counted(library.SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, count: Callable[[int], None]) -> None:
            self.stream, self.count = stream, count

        def __iter__(self) -> Iterator[bytes]:
            for part in self.stream:
                self.count(len(part))
                yield part

        def close(self) -> None:
            self.stream.close()

    return Counted


@lru_cache(maxsize=1)
def meter() -> Any:
    """The class of a progress bar that counts what comes through Xet, which is not seen otherwise."""
    bars: Any = import_module("huggingface_hub.utils.tqdm")

    class Meter(bars.tqdm):  # type: ignore[misc]
        def update(self, n: float | None = 1) -> Any:
            traffic.received(int(n or 0))
            return super().update(n)

    return Meter


def _causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it: the client often wraps the reason into something else."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _response_of(error: BaseException) -> Any:
    """The Hub's answer that an error is about, if it answered."""
    return next((found for one in _causes_of(error) if (found := getattr(one, "response", None)) is not None), None)


def _status_of(error: BaseException) -> int | None:
    """The status of that answer, which Xet only tells in words."""
    response = _response_of(error)
    if response is not None:
        return int(response.status_code)
    told = next((found for one in _causes_of(error) if (found := XET_STATUS.search(str(one)))), None)
    return int(told[1]) if told else None


def _denial_of(error: BaseException) -> str | None:
    """Why the cache takes no file, where that is what went wrong."""
    denials = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
    return next((one.strerror for one in _causes_of(error) if isinstance(one, OSError) and one.errno in denials), None)


def _retry_after(response: Any) -> int:
    """Seconds that a server asks to wait."""
    told = response.headers.get("Retry-After", "")
    return int(told) if told.isdigit() else 0


def _seconds_to_wait(error: Exception) -> int:
    """The same, of an error."""
    response = _response_of(error)
    return _retry_after(response) if response is not None else 0


def _is_passing(error: Exception) -> bool:
    """Whether the same request may succeed soon: no answer, a broken one, or one that blames the server."""
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    if any(isinstance(one, HFValidationError | OfflineModeIsEnabled) for one in _causes_of(error)):
        return False
    if isinstance(error, StandstillError) or _denial_of(error):
        return False
    status = _status_of(error)
    return status is None or status in (408, 429) or status >= 500


def _explain(error: Exception, kind: Kind, id: str, revision: str | None) -> StfitError:
    """One sentence for what went wrong, and what to do."""
    from huggingface_hub import errors

    causes = list(_causes_of(error))
    if denial := _denial_of(error):
        return ResourceError(f"the {kind} `{id}` can't be kept in {constants.HF_HUB_CACHE}: {denial}; HF_HOME names it")
    if any(isinstance(one, errors.HFValidationError) for one in causes):
        message = f"`{id}` is no id of a {kind} on the Hub, like `owner/name`; a path starts with ./ or /"
        return HubError(Problem(message, REFUSED))
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in causes):
        return HubError(not_here(kind, id))
    status = _status_of(error)
    if isinstance(error, StandstillError) or status is None:
        return HubError(Problem(f"the Hub ({constants.ENDPOINT}) {_no_answer(causes)}: {kind} `{id}`", OUT_OF_REACH))
    if status == 429:
        return HubError(Problem(f"the Hub's rate limit is reached: {kind} `{id}`; try again later", OUT_OF_REACH))
    if status >= 500:
        message = f"the Hub is in trouble (status {status}): {kind} `{id}`; try again later"
        return HubError(Problem(message, OUT_OF_REACH))
    codes = ((errors.RepositoryNotFoundError, NOT_THERE), (errors.RevisionNotFoundError, NO_REVISION))
    code = next((code for refused, code in codes if refused in map(type, causes)), REFUSED)
    return HubError(Problem(_refusal(causes, status, kind, id, revision), code))


def not_here(kind: Kind, id: str) -> Problem:
    """What is said offline."""
    message = f"HF_HUB_OFFLINE is set, and the {kind} `{id}` is not all here: `stfit fetch RECIPE` gets it, online"
    return Problem(message, OUT_OF_REACH)


def _no_answer(causes: list[BaseException]) -> str:
    """How a request ended that was not answered."""
    names = " ".join(type(one).__name__ for one in causes)
    if "Standstill" in names:
        return f"is given up after {_patience()} s in which next to nothing moved"
    if "Timeout" in names:
        return f"did not answer within {constants.HF_HUB_DOWNLOAD_TIMEOUT} s"
    if "ConnectError" in names:
        return "can't be reached"
    if any(isinstance(one, ValueError) for one in causes):
        return "answers what can't be read"
    reason = str(causes[-1]).strip().splitlines() or [""]
    return f"broke off ({type(causes[-1]).__name__}: {QUERY.sub('', reason[0])[:200]})"


def _refusal(causes: list[BaseException], status: int, kind: Kind, id: str, revision: str | None) -> str:
    """Why the Hub says no. Missing and forbidden repositories are told apart as far as the Hub does."""
    from huggingface_hub import errors

    has_token = client.get_token() is not None
    refused = {type(one) for one in causes}
    if errors.GatedRepoError in refused:
        ask_for_it = f"ask for access at {constants.ENDPOINT}/{'' if kind == 'model' else 'datasets/'}{id}"
        return f"the {kind} `{id}` is gated: {ask_for_it if has_token else f'{LOG_IN}, and {ask_for_it}'}"
    if errors.RepositoryNotFoundError in refused:
        unless = "this account may not see it" if has_token else f"it is private: then {LOG_IN}"
        return f"the Hub shows no {kind} `{id}`: it is spelt otherwise, or {unless}"
    if errors.RevisionNotFoundError in refused:
        return f"the {kind} `{id}` has no revision `{revision}`{_hint_of_revision(kind, id, revision or '')}"
    if status == 401:
        return f"the Hub does not accept the token: {LOG_IN}"
    response = _response_of(causes[0])
    said = (response is not None and response.headers.get("X-Error-Message")) or f"status {status}"
    return f"the Hub refuses the {kind} `{id}`: {said}"


def _hint_of_revision(kind: Kind, id: str, revision: str) -> str:
    """The nearest branch or tag, or all of a few."""
    try:
        refs = client.HfApi().list_repo_refs(id, repo_type=kind)
    except Exception:  # a hint is not worth a second error
        return ""
    hint = did_you_mean(revision, [ref.name for ref in (*refs.branches, *refs.tags)])
    return f"; {hint}" if hint else ""
