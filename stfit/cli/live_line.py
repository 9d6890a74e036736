"""The line at the foot of a terminal that says how far a command is; on a pipe and in CI, a line now and then."""

from __future__ import annotations

import os
import sys
import time

CLEAR = "\r\x1b[K"
STEP = 0.05
"""Share of the work between two lines that are not written over."""
PAUSE = 30.0
"""Seconds between two lines where nobody knows how much work there is."""


def is_watched() -> bool:
    """Whether somebody sees stderr live; FORCE_COLOR and a CI with a terminal say nothing about that."""
    return sys.stderr.isatty() and not os.environ.get("CI")


def say(text: str) -> None:
    """A line on stderr that stays; a live line makes room for it, and is written anew below."""
    sys.stderr.write(f"{CLEAR if is_watched() else ''}{text}\n")


class LiveLine:
    """What is done, and for how long it goes on."""

    def __init__(self) -> None:
        self.first: tuple[float, float] | None = None
        """When it was first known how much is done, and how much that was."""
        self.said_at = time.monotonic()
        self.said_share = 0.0

    def show(self, text: str, share: float | None) -> None:
        """After some work. `share` is the part of all of it that is done, where that is known."""
        now = time.monotonic()
        if share:
            self.first = self.first or (now, share)
            text = f"{share:4.0%}  {_time_left(*self.first, now, share)}{text}"
        if is_watched():
            from rich.console import Console

            # A line that is wider than its window would not be written over, but pushed up, at every step.
            sys.stderr.write(CLEAR + text[: Console(stderr=True).width - 1])
            sys.stderr.flush()
        elif self.is_due(now, share):
            self.said_at, self.said_share = now, share or 0.0
            say(text)

    def is_due(self, now: float, share: float | None) -> bool:
        """Whether it is time for another line that stays."""
        if share is None:
            return now - self.said_at > PAUSE
        return share == 1 or share >= self.said_share + STEP - 1e-9

    def close(self) -> None:
        """Leave the terminal as it was."""
        if is_watched():
            sys.stderr.write(CLEAR)


def _time_left(start: float, first_share: float, now: float, share: float) -> str:
    """How long the rest takes at the pace since `start`; empty where there is no pace yet."""
    done = share - first_share
    return f"{clock((now - start) * (1 - share) / done)} left  " if done else ""


def clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
