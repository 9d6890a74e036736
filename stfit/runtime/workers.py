"""Processes that share nothing: each yields what it has done, and the first error of one stops the others."""

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from stfit import errors
from stfit.errors import InterruptedRun, ResourceError, StfitError
from stfit.runtime.system import count_cores, end_with_parent, is_kill

log = logging.getLogger("stfit")

SECONDS_TO_STOP = 30.0
"""Until a worker that was asked to stop is killed: it may finish what it saves."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
"""Of torch, and of the tokenizers."""


class _Failure(NamedTuple):
    name: str
    """Of a class of stfit.errors; empty for any other error, whose traceback is the message."""
    message: str
    exit_code: int


def run_workers(work: Callable[..., Iterator[Any]], arguments: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """Run `work(*arguments[i])` in a process for each i, and yield (i, item) whenever one of them yields an item.

    `work` is a function of a module. Log messages of the workers are logged here, and the same message once.
    """
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(max(1, count_cores() // len(arguments))))  # workers inherit it
    context = multiprocessing.get_context("spawn")
    running: dict[Any, tuple[int, BaseProcess]] = {}
    """By the end of the pipe on which the worker sends."""
    said: set[str] = set()
    try:
        receiver: Any
        for number, given in enumerate(arguments):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(work, given, sender), daemon=True)
            process.start()
            sender.close()  # the worker has the only one: when it dies, receiving ends
            running[receiver] = (number, process)
        while running:
            for receiver in wait(list(running)):
                try:
                    item = receiver.recv()
                except EOFError:
                    _require_end(*running.pop(receiver))
                    continue
                if isinstance(item, _Failure):
                    raise _to_error(item)
                if not isinstance(item, logging.LogRecord):
                    yield running[receiver][0], item
                elif item.getMessage() not in said:
                    said.add(item.getMessage())
                    log.handle(item)
    finally:
        _stop([process for _, process in running.values()])


def _work(work: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], channel: Connection) -> None:
    end_with_parent()
    sending = threading.Lock()  # other threads log

    def send(item: Any) -> None:
        with sending:
            channel.send(item)

    log.handlers, log.propagate = [_Forward(send)], False
    log.setLevel(logging.INFO)
    try:
        for item in work(*arguments):
            send(item)
    except (StfitError, InterruptedRun) as error:
        send(_Failure(type(error).__name__, str(error), error.exit_code))
    except Exception:
        send(_Failure("", traceback.format_exc(), 1))


class _Forward(QueueHandler):
    def __init__(self, send: Callable[[Any], None]) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        self._send(record)


def _to_error(failure: _Failure) -> BaseException:
    if failure.name == InterruptedRun.__name__:
        return InterruptedRun(failure.message, failure.exit_code - 128)
    if failure.name:
        error: StfitError = getattr(errors, failure.name)(failure.message)
        return error
    return RuntimeError(f"in a worker process:\n{failure.message}")


def _require_end(number: int, process: BaseProcess) -> None:
    process.join()
    code = process.exitcode or 0
    if code < 0:
        reason = " (out of memory?)" if is_kill(-code) else ""
        name = signal.Signals(-code).name
        raise ResourceError(f"process {number} was killed by {name}{reason}; run the same command again to resume")
    if code > 0:
        raise ResourceError(f"process {number} ended with code {code}; run the same command again to resume")


def _stop(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + SECONDS_TO_STOP
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()
