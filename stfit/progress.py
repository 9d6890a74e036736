"""What the program is doing. Long steps say so here, and the command line shows it, as it shows log messages.

A step does not know whether anybody looks. Called from Python, nobody does, and this costs nothing.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(eq=False)
class Task:
    doing: str
    """Such as `reading train.jsonl`; a verb's own task says how far it is: `step 3/50  loss 0.4`."""
    total: float | None = None
    """None if the amount of work is unknown."""
    unit: str = ""
    """Of what `done` counts, to be shown where `total` is unknown; empty: nothing is shown."""
    of_verb: bool = False
    done: float = 0.0
    seconds_left: float | None = None
    """None: estimated from the pace so far."""
    start: float = field(default_factory=lambda: time.monotonic())

    def update(self, done: float, doing: str | None = None, seconds_left: float | None = None) -> None:
        self.done, self.doing, self.seconds_left = done, doing or self.doing, seconds_left
        on_change()

    def advance(self, work: float) -> None:
        self.update(self.done + work)

    @property
    def share(self) -> float | None:
        """Of the work, from 0 to 1."""
        return None if self.total is None else min(1.0, self.done / self.total) if self.total else 1.0


tasks: list[Task] = []
"""Of the main thread, the innermost last."""


def on_change() -> None:
    """Called after a task began, moved or ended. The command line puts its own function here."""


@contextmanager
def task(doing: str, total: float | None = None, unit: str = "", of_verb: bool = False) -> Iterator[Task]:
    """A step of the program, while the block runs."""
    new = Task(doing, total, unit, of_verb)
    if threading.current_thread() is not threading.main_thread():  # works ahead of what is shown
        yield new
        return
    tasks.append(new)
    on_change()
    try:
        yield new
    finally:
        tasks.remove(new)  # a generator that is closed late ends after those that began later
        on_change()


def track(items: Iterable[Item], doing: str, unit: str = "") -> Iterator[Item]:
    """The items; the step that they are taken in ends with the last one."""
    with task(doing, len(items) if isinstance(items, Sized) else None, unit) as step:
        for item in items:
            yield item
            step.advance(1)
