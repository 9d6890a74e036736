"""SIGINT, SIGTERM and SIGHUP: stop at once if nothing is lost by it, otherwise after the current step is saved."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from stfit.distributed import all_reduce_max, world_size
from stfit.errors import InterruptedRun
from stfit.runtime.system import STOP_SIGNALS

SIGNAL_PATIENCE = 5.0
"""Seconds that a step has to finish, and that a library has to return once a signal has been raised in it. A download
waits for its threads, possibly for ever."""


class SignalHandler:
    def __init__(self) -> None:
        self.received: int | None = None
        self.received_at = 0.0
        self.defers = False
        """Whether a signal waits for the current step to be saved."""
        self.hard_exit: threading.Timer | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received, self.received_at = number, time.monotonic()
        if not self.defers:
            self.hard_exit = threading.Timer(SIGNAL_PATIENCE, os._exit, (128 + number,))
            self.hard_exit.daemon = True
            self.hard_exit.start()
            raise _interruption(number)

    def cancel_hard_exit(self) -> None:
        if self.hard_exit is not None:
            self.hard_exit.cancel()

    def agreed_signal(self) -> int:
        """A signal that any rank has received, or 0. A collective operation."""
        return all_reduce_max(self.received or 0)

    def raise_if_received(self, message: str = "") -> None:
        """For a deferred signal, or one whose exception was lost in a `__del__`. A collective operation."""
        if number := self.agreed_signal():
            raise _interruption(number, message)

    def defer_signals(self) -> None:
        self.raise_if_received()
        self.defers = True

    def interrupt_long_step(self) -> None:
        """Not with several processes, of which none may leave a step alone; torchrun gives them 30 seconds."""
        if world_size() == 1 and self.received is not None and time.monotonic() - self.received_at >= SIGNAL_PATIENCE:
            raise _interruption(self.received)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """With several processes, of which none may leave the block alone, a signal is raised at its end."""
        if world_size() > 1:
            yield
            self.raise_if_received()
            return
        self.defers = False
        try:
            self.raise_if_received()
            yield
            self.raise_if_received()
        finally:
            self.defers = True
            self.cancel_hard_exit()


def _interruption(number: int, message: str = "") -> InterruptedRun:
    return InterruptedRun(f"stopped by {signal.Signals(number).name}{': ' if message else ''}{message}", number)


@contextmanager
def handle_signals() -> Iterator[SignalHandler]:
    """Handle signals during the block; does nothing outside the main thread, where Python can't handle signals."""
    handler = SignalHandler()
    if threading.current_thread() is not threading.main_thread():
        yield handler
        return
    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup does
    previous = {number: signal.signal(number, handler.handle) for number in handled}
    try:
        yield handler
    finally:
        for number, action in previous.items():
            signal.signal(number, action)
        handler.cancel_hard_exit()


@contextmanager
def handle_signals_resumably(describe_kept: Callable[[], str]) -> Iterator[SignalHandler]:
    """`handle_signals`; an interruption says what is kept, and how to go on."""
    with handle_signals() as handler:
        try:
            yield handler
        except InterruptedRun as stop:
            advice = f"{describe_kept()}; run the same command to resume"
            raise InterruptedRun(f"{stop}: {advice}", stop.exit_code - 128) from stop
