"""How anything is said: values and tables on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from stfit.cli.live_line import say

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


NO_MEMORY = re.compile("can't allocate memory|out of memory")
"""How torch says it, on a CPU and on a GPU."""


def console(stderr: bool) -> Console:
    """A rich console, in plain text on a pipe, or where NO_COLOR is set; FORCE_COLOR is rich's own business."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))  # https://no-color.org; rich would leave bold letters
    return Console(stderr=stderr, highlight=False, soft_wrap=True, color_system=None if plain else "auto")


class ToStderr(logging.Handler):
    """Shows log records as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line a record."""
        say(self.format(record))


def start_logging() -> None:
    """Show what the rooms log: notes at INFO, things to know at WARNING."""
    logger = logging.getLogger("stfit")
    logger.setLevel(logging.INFO)
    logger.handlers = [ToStderr()]


def show_json(value: Any) -> None:
    """One JSON value on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def be_silent() -> None:
    """Print nothing from here on: the first of several processes speaks for all."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - to the end of the process


def show_error(error: BaseException, as_json: bool) -> int:
    """Say what went wrong, or, as one of several processes, leave it to who started them; the exit code."""
    import typer

    from stfit.distributed import launched_world_size, write_error_file
    from stfit.errors import InterruptedRun, StfitError

    usage_error = typer.BadParameter.__base__ or typer.BadParameter  # click's, or that of newer typers' own copy of it
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort):
        name, message, code = "InterruptedRun", "stopped", 130
    elif isinstance(error, usage_error):
        name, message, code = "usage", error.format_message(), 2  # type: ignore[attr-defined]
    elif isinstance(error, StfitError | InterruptedRun):
        name, message, code = type(error).__name__, str(error), error.exit_code
    elif isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        name, message, code = "ResourceError", "out of memory: lower train.mini_batch_size or train.batch_size", 9
    else:
        name, code = "bug", 1
        message = f"{type(error).__name__}: {error}\nThis is a bug in stfit; --debug shows where."
    if launched_world_size():
        write_error_file(name, message, code)
    else:
        say_error(name, message, code, as_json)
    return code


def say_error(name: str, message: str, code: int, as_json: bool) -> None:
    """An error, in words and where it is wanted as JSON."""
    sys.stderr.write(f"stfit: {message}\n")
    if as_json:
        show_json({"error": {"class": name, "message": message, "exit_code": code}})


def flush() -> None:
    """Everything said is on its way."""
    sys.stdout.flush()
    sys.stderr.flush()


def show_traceback(error: BaseException) -> None:
    """Where in stfit an error comes from, and what caused it."""
    sys.stderr.write("".join(traceback.format_exception(error)))


def show_page(text: str, output: Path | None, as_json: bool = False) -> None:
    """A generated page, on stdout or in a file."""
    from stfit.errors import ResourceError

    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{output} can't be written: {error.strerror}") from error
    if as_json:
        show_json({"output": str(output)})
    else:
        say(f"{output}: written")


def table(header: list[str], rows: list[list[str]], words: Container[str] = ()) -> None:
    """Rows of text; all columns are numbers but the first, and those called `words`.

    Nothing is cut: on a pipe lines are as long as they are, and a window too narrow for them gets a block for each row.
    """
    screen = console(stderr=False)
    width = sum(max(map(len, column)) + 2 for column in zip(header, *rows, strict=True)) - 2
    if width > screen.width and sys.stdout.isatty():
        for first, *others in rows:
            screen.print(first, markup=False)
            for name, cell in zip(header[1:], others, strict=True):
                if cell:
                    screen.print(f"  {name}: {cell}" if name else f"  {cell}", markup=False)
        return
    from rich.table import Table

    title, *columns = header
    grid = Table(title, box=None, pad_edge=False)
    for column in columns:
        grid.add_column(column, justify="left" if column in words else "right")
    for cells in rows:
        grid.add_row(*cells)
    screen.width = max(width, 1000)
    screen.print(grid, markup=False)
