"""SIGINT, SIGTERM and SIGHUP: at once where nothing is lost by it, else as soon as the step in hand is saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stfit.distributed import all_reduce_max, world_size
from stfit.errors import InterruptedRun

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SIGNAL_PATIENCE = 5.0
"""Seconds that a step has to end, and that a library has to let go when a signal comes while nothing can be lost: a
download waits for its threads, for as long as the network likes."""


class SignalHandler:
    """Remembers a signal while a step runs."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.received_at = 0.0
        self.agreed_signal = 0
        self.defers = False
        """A step runs, or is being saved."""
        self.hard_exit: threading.Timer | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """First signal: raise, or wait for the step. A second one leaves at once."""
        if self.received is not None:
            os._exit(128 + number)
        self.received, self.received_at = number, time.monotonic()
        if not self.defers:
            self.hard_exit = threading.Timer(SIGNAL_PATIENCE, os._exit, (128 + number,))
            self.hard_exit.daemon = True
            self.hard_exit.start()
            raise _interruption(number)

    def is_received(self) -> bool:
        """Whether a signal came while a step ran, to any of the processes: all ask this at the same place."""
        self.agreed_signal = all_reduce_max(self.received or 0)
        return bool(self.agreed_signal)

    def raise_if_received(self, message: str = "") -> None:
        """Act on a signal that came while a step ran, or whose exception was lost.

        What is raised while Python clears an object away goes no further.
        """
        if self.is_received():
            raise _interruption(self.agreed_signal, message)

    def defer_signals(self) -> None:
        """From here on a signal waits for the step in hand."""
        self.raise_if_received()
        self.defers = True

    def interrupt_long_step(self) -> None:
        """Act on a signal while a step runs that takes too long to wait for its end.

        Of several processes none may leave a step alone; torchrun waits 30 seconds for it.
        """
        if world_size() == 1 and self.received is not None and time.monotonic() - self.received_at >= SIGNAL_PATIENCE:
            raise _interruption(self.received)

    def cancel_hard_exit(self) -> None:
        """Take all the time that it needs from here on."""
        if self.hard_exit is not None:
            self.hard_exit.cancel()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block in the middle of the run that may be left at any time: an evaluation.

        Of several processes none may leave it alone: they wait for its end.
        """
        if world_size() > 1:
            yield
            self.raise_if_received("")
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
    """The exception for a signal."""
    return InterruptedRun(f"stopped by {signal.Signals(number).name}{': ' if message else ''}{message}", number)


@contextmanager
def handle_signals() -> Iterator[SignalHandler]:
    """Handle the signals while the block runs; outside the main thread they can't be handled and are left alone."""
    stop = SignalHandler()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handled = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {number: signal.signal(number, stop.handle) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.cancel_hard_exit()
