"""Terminal output: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from stfit.io.atomic import atomic_write
from stfit.io.display import escape_controls
from stfit.io.outputs import require_output

if TYPE_CHECKING:
    from pathlib import Path


def log_line(text: str) -> None:
    """Print a line on stderr. While a progress bar is shown, rich prints the line above the bar."""
    sys.stderr.write(f"{escape_controls(text)}\n")


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log_line(self.format(record))


def start_logging() -> None:
    logger = logging.getLogger("stfit")
    logger.setLevel(logging.INFO)
    logger.handlers = [_StderrHandler()]


def print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2) + "\n"
    sys.stdout.write(text)


def silence() -> None:
    """Discard all further output: of several worker processes, only rank 0 prints."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - stays open until exit


def print_page(text: str, output: Path | None, as_json: bool = False) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    require_output(output, [])
    atomic_write(output, text)
    if as_json:
        print_json({"output": str(output)})
    else:
        log_line(f"{output}: written")


def print_table(header: list[str], rows: list[list[str]], text_columns: Collection[str] = ()) -> None:
    """No cell is shortened or wrapped: on a terminal that is too narrow, each row becomes a block of lines."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    rows = [[escape_controls(cell) for cell in cells] for cells in rows]
    width = sum(max(map(cell_len, column)) + 2 for column in zip(header, *rows, strict=True))
    plain = bool(os.environ.get("NO_COLOR"))  # https://no-color.org; rich alone would still print bold text
    console = Console(highlight=False, markup=False, soft_wrap=True, color_system=None if plain else "auto")
    title, *columns = header
    if sys.stdout.isatty() and width > console.width:
        for first, *cells in rows:
            lines = [
                f"  {name}: {cell}" if name else f"  {cell}" for name, cell in zip(columns, cells, strict=True) if cell
            ]
            console.print("\n".join([first, *lines]))
        return
    table = Table(title, box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in text_columns else "right")
    for cells in rows:
        table.add_row(*cells)
    console.width = max(width, console.width)  # on a pipe, rich assumes 80 columns
    console.print(table)
