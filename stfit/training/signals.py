"""SIGINT and SIGTERM: at once where nothing is lost by it, else as soon as the step in hand is finished and saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stfit.errors import InterruptedRun

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Remembers a signal while a step runs."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.waits = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """First signal: raise, or wait for the step. A second one leaves at once."""
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        if not self.waits:
            raise InterruptedRun(f"stopped by {signal.Signals(number).name}", number)

    def raise_if_received(self, message: str) -> None:
        """Act on a signal that came while a step ran."""
        if self.received is not None:
            raise InterruptedRun(f"stopped by {signal.Signals(self.received).name}: {message}", self.received)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handle both signals while the block runs; outside the main thread signals can't be handled and are left alone."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
