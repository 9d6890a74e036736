"""Progress on stderr: a live bar on a terminal, plain lines at intervals on a pipe and in CI."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stfit.cli.console import log_line

Update = Callable[[str, float | None], None]
"""Shows a text and the share of the work that is done (0 to 1); None if the amount of work is unknown."""

SHARE_PER_LINE = 0.05
SECONDS_PER_LINE = 30.0


def is_interactive() -> bool:
    """Whether stderr is a terminal that somebody watches; unlike rich, this ignores FORCE_COLOR."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


@contextmanager
def show_progress() -> Iterator[Update]:
    if not is_interactive():
        yield PlainProgress().update
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    bar = Progress(
        BarColumn(bar_width=20),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="crop", ratio=1)),
        console=Console(stderr=True),
        refresh_per_second=4,
        transient=True,
        expand=True,
    )
    with bar as progress:
        task = progress.add_task("", total=None)
        yield lambda text, share: progress.update(
            task, description=_with_percentage(text, share), completed=share or 0, total=None if share is None else 1
        )


class PlainProgress:
    """Prints a line every 5 % of the work, or every 30 seconds if the amount of work is unknown."""

    def __init__(self) -> None:
        self.last_time = time.monotonic()
        self.last_share = 0.0

    def update(self, text: str, share: float | None) -> None:
        now = time.monotonic()
        if share is None:
            is_due = now - self.last_time > SECONDS_PER_LINE
        else:
            is_due = share == 1 or share >= self.last_share + SHARE_PER_LINE - 1e-9
        if is_due:
            self.last_time, self.last_share = now, share or 0.0
            log_line(_with_percentage(text, share))


def _with_percentage(text: str, share: float | None) -> str:
    return text if share is None else f"{share:4.0%}  {text}"
