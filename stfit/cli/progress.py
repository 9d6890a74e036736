"""The tasks of `stfit.progress` on stderr: live bars on a terminal, plain lines at intervals on a pipe and in CI."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from stfit import progress
from stfit.cli.console import log_line
from stfit.io.display import escape_controls
from stfit.progress import Task

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

SHARE_PER_LINE = 0.05
"""Of a verb's own work: a line is printed whenever so much more is done."""
SECONDS_PER_LINE = 20.0
"""Of any task: when it has been silent for so long, a line is printed."""
SECONDS_UNSHOWN = 1.0
"""Shorter tasks have no bar, which would only flicker."""


def is_interactive() -> bool:
    """Whether stderr is a terminal that somebody watches; unlike rich, this ignores FORCE_COLOR."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


@contextmanager
def show_progress() -> Iterator[None]:
    """While the block runs, its tasks are shown."""
    display = LiveBars() if is_interactive() else PlainLines()
    ended = threading.Event()
    thread = threading.Thread(target=_refresh_until, args=(ended, display), daemon=True)

    def on_change() -> None:
        if thread.ident is None:
            thread.start()
        display.on_change()

    progress.on_change = on_change
    try:
        yield
    finally:
        progress.on_change = lambda: None
        ended.set()
        if thread.ident is not None:
            thread.join()
        display.close()


def _refresh_until(ended: threading.Event, display: "LiveBars | PlainLines") -> None:
    """Much of what takes long is one call, in which no task moves."""
    while not ended.wait(0.25):
        display.refresh()


class PlainLines:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_line = time.monotonic()
        self._shares: dict[Task, float] = {}
        """Of a verb's task, what was done when its last line was printed."""

    def on_change(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        with self._lock:
            tasks = list(progress.tasks)
            if tasks and (self._has_moved(tasks[-1]) or self._was_silent(tasks[-1])):
                self._last_line = time.monotonic()
                log_line(_describe(tasks))

    def _has_moved(self, task: Task) -> bool:
        share, last = task.share, self._shares.get(task, 0.0)
        if not task.of_verb or share is None or not (share == 1 > last or share >= last + SHARE_PER_LINE - 1e-9):
            return False
        self._shares[task] = share
        return True

    def _was_silent(self, task: Task) -> bool:
        return time.monotonic() - max(self._last_line, task.start) > SECONDS_PER_LINE

    def close(self) -> None:
        pass


def _describe(tasks: list[Task]) -> str:
    """A line for the innermost task; a verb's own says where the rest of it stands."""
    inner = [task for task in tasks if not task.of_verb] if not tasks[-1].of_verb else tasks[-1:]
    share = inner[-1].share
    percentage = "" if share is None else f"{share:4.0%}  "
    return f"{percentage}{': '.join(map(_text, inner))}{_time_left(inner[-1], '  ')}"


def _text(task: Task) -> str:
    return f"{task.doing}, {task.done:,.0f} {task.unit}" if task.total is None and task.unit else task.doing


def _time_left(task: Task, before: str = "") -> str:
    seconds, share = task.seconds_left, task.share
    if seconds is None and share:
        seconds = (time.monotonic() - task.start) * (1 - share) / share
    return f"{before}{timedelta(seconds=round(seconds))} left" if seconds else ""


class LiveBars:
    """One for each task, and gone when the last task has ended, so that results are printed without them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._live: Live | None = None

    def on_change(self) -> None:
        if not progress.tasks:
            self.close()
        elif self._live is None and progress.tasks[0].of_verb:
            self.refresh()

    def refresh(self) -> None:
        from rich.console import Console
        from rich.live import Live

        with self._lock:
            now = time.monotonic()
            tasks = [task for task in list(progress.tasks) if task.of_verb or now - task.start > SECONDS_UNSHOWN]
            if not tasks:
                return
            if self._live is None:
                self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(_bars(tasks), refresh=True)

    def close(self) -> None:
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None


def _bars(tasks: list[Task]) -> "Table":
    """The bar and the time first: a narrow terminal cuts off the rest."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=20)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="crop", ratio=1)
    for task in tasks:
        share = task.share
        bar = ProgressBar(total=None if share is None else 1, completed=share or 0, width=20, pulse=share is None)
        percentage = "" if share is None else f"{share:4.0%}  "
        table.add_row(bar, _time_left(task), Text(f"{percentage}{escape_controls(_text(task))}"))
    return table
