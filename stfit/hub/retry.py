"""Requests to the Hub with time limits and retries.

The Hub's client waits forever for a server that is silent or sends a byte now and then, and it retries only some
requests. Here every response has a time limit, a request has four attempts, and a stalled transfer is abandoned. Only
public hooks of huggingface_hub are used: `set_client_factory`, `get_session` and HF_XET_CLIENT_* variables.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from stfit.errors import HubError, Problem, StfitError
from stfit.hub.client import client, constants, http_library
from stfit.hub.explain import OUT_OF_REACH, Kind, StalledError, causes_of, explain_error, is_retryable, retry_after
from stfit.progress import Task, task

log = logging.getLogger("stfit")

T = TypeVar("T")

PAUSES = (0.5, 1, 2)
"""Seconds before each retry."""
GIVE_UP = 35
"""No retry if the last good response is longer ago than this, in seconds."""
MAX_RETRY_AFTER = 20
"""Longest Retry-After that is obeyed, in seconds."""
MIN_PROGRESS = 32 * 1024
"""Bytes that must be transferred within the stall timeout; a good response to a small request counts as this many."""
MIN_UPLOAD_RATE = 64 * 1024
"""Assumed minimum bytes per second of an upload whose progress is unobservable."""
XET_SETTINGS = {
    "CONNECT_TIMEOUT": "{}s",
    "READ_TIMEOUT": "{}s",
    "RETRY_MAX_ATTEMPTS": "3",
    "RETRY_BASE_DELAY": "500ms",
    "RETRY_MAX_DURATION": "20s",
}
"""Time limits of the Xet client (https://docs.rs/xet-runtime, config::groups::client), which retries for six minutes
by default. `{}` is HF_HUB_DOWNLOAD_TIMEOUT."""


class TransferMonitor:
    """Counts the bytes that this process exchanges with the Hub, and remembers when the last good response came."""

    def __init__(self) -> None:
        self.bytes = 0
        self.last_response = 0.0
        self.abandoned_threads = False
        """If a request thread was abandoned, the process must exit with os._exit."""

    def sent(self, count: int) -> None:
        self.bytes += count

    def received(self, count: int) -> None:
        """Count bytes of a good response."""
        self.bytes += count
        self.last_response = time.monotonic()


monitor = TransferMonitor()


def call_with_retries(
    request: Callable[[], T],
    kind: Kind,
    id: str,
    revision: str | None = None,
    done: Callable[[], T | None] = lambda: None,
    unobservable_bytes: int = 0,
) -> T:
    """`done`: whether a failed request took effect anyway. `unobservable_bytes`: size of an upload without progress."""
    _configure_client()
    monitor.last_response = time.monotonic()
    for pause in (*PAUSES, None):
        try:
            with task(f"transferring the {kind} `{id}`", unit="MB") as transfer:
                return _with_watchdog(request, unobservable_bytes, transfer)
        except Exception as error:  # the client lets errors of its HTTP library and of Xet through
            if ours := next((cause for cause in causes_of(error) if isinstance(cause, StfitError)), None):
                raise ours from ours.__cause__
            silence = time.monotonic() - monitor.last_response
            if (result := done()) is not None:
                return result
            if pause is None or not is_retryable(error) or silence > GIVE_UP:
                raise explain_error(error, kind, id, revision) from error
            time.sleep(max(pause, retry_after(error)))
    raise AssertionError  # the last pause is None


def _with_watchdog(request: Callable[[], T], unobservable_bytes: int, transfer: Task) -> T:
    # A thread of its own, because there is no other way to leave a call of the client, in Python or Rust, that hangs.
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(request())
        except BaseException as error:  # raised again by outcome.result()
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True, name="hub").start()
    timeout = 6 * constants.HF_HUB_DOWNLOAD_TIMEOUT
    transferred, since = begin, _ = monitor.bytes, time.monotonic()
    try:
        while not wait([outcome], timeout=1).done:
            transfer.update((monitor.bytes - begin) / 1e6)
            if monitor.bytes - transferred >= MIN_PROGRESS:
                transferred, since = monitor.bytes, time.monotonic()
            elif time.monotonic() - since > timeout + unobservable_bytes / MIN_UPLOAD_RATE:
                raise StalledError(f"gave up after {timeout} s with almost no progress")
    except BaseException:  # signals too
        monitor.abandoned_threads = True
        raise
    return outcome.result()


@cache
def _configure_client() -> None:
    library, hooks = http_library(), client.get_session().event_hooks

    def build_client() -> Any:
        event_hooks = {"request": [*hooks["request"], _request_hook], "response": [*hooks["response"], _response_hook]}
        return library.Client(event_hooks=event_hooks, follow_redirects=True)

    client.set_client_factory(build_client)
    import_module("huggingface_hub.utils").disable_progress_bars()
    for name, value in XET_SETTINGS.items():  # Xet is written in Rust and configured by its environment only
        os.environ.setdefault(f"HF_XET_CLIENT_{name}", value.format(constants.HF_HUB_DOWNLOAD_TIMEOUT))


def _request_hook(request: Any) -> None:
    limit = constants.HF_HUB_DOWNLOAD_TIMEOUT * (1 if request.method in ("GET", "HEAD") else 3)
    timeouts = request.extensions.setdefault("timeout", {})
    for phase in ("connect", "read", "write", "pool"):
        timeouts[phase] = min(timeouts.get(phase) or limit, limit)
    request.stream = _counted_stream()(request.stream, monitor.sent)


def _response_hook(response: Any) -> None:
    wait_time = response.headers.get("Retry-After", "")
    if response.status_code == 429 and wait_time.isdigit() and int(wait_time) > MAX_RETRY_AFTER:
        raise HubError(Problem(f"the Hub's rate limit is reached: it asks to wait {wait_time} s", OUT_OF_REACH))
    if response.status_code < 429:
        size = response.headers.get("Content-Length", "")
        if response.request.method == "HEAD" or not size.isdigit() or int(size) < MIN_PROGRESS:
            monitor.received(MIN_PROGRESS)  # not of a large file, whose client asks again and again
        response.stream = _counted_stream()(response.stream, monitor.received)


@cache
def _counted_stream() -> Any:
    class CountedStream(http_library().SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, count: Callable[[int], None]) -> None:
            self.stream, self.count = stream, count

        def __iter__(self) -> Iterator[bytes]:
            for part in self.stream:
                self.count(len(part))
                yield part

        def close(self) -> None:
            self.stream.close()

    return CountedStream


@cache
def progress_meter() -> Any:
    """A progress bar class that counts what comes through Xet, which bypasses the HTTP client."""
    utils: Any = import_module("huggingface_hub.utils")

    class Meter(utils.tqdm):  # type: ignore[misc]
        def update(self, n: float | None = 1) -> Any:
            monitor.received(int(n or 0))
            return super().update(n)

    return Meter
