"""What several verbs print: cells of tables (metrics, their gains, gates), and the start of a long text."""

import sys
from shutil import get_terminal_size
from typing import Any

from stfit.io.display import escape_controls, format_gain, format_metric, format_verdict

GATE_HEADER = ["gate", "value", "needed", ""]


def gain_with_arrow(gain: float) -> str:
    return f"{format_gain(gain)} {'=' if abs(gain) < 5e-5 else '↑' if gain > 0 else '↓'}"


def gain_row(name: str, before: float | None, after: float | None, verdict: str | None) -> list[str]:
    gain = "" if before is None or after is None else gain_with_arrow(after - before)
    return [name, format_metric(before), format_metric(after), gain, format_verdict(verdict)]


def gate_row(gate: dict[str, Any]) -> list[str]:
    condition = gate["metric"] + (f" against {gate['against']}" if gate["against"] else "")
    seeds = gate.get("seeds") or 0  # not in results of earlier versions
    condition += f", mean of {seeds} seeds" if seeds > 1 else ""
    verdict = {True: "passed", False: "NOT PASSED", None: "skipped"}[gate["passed"]]
    verdict += f": {gate['note']}" if gate["note"] else ""
    return [condition, format_metric(gate["value"]), format_metric(gate["limit"]), verdict]


def two_lines(text: str) -> str:
    """The start of a text that fits on two lines of the terminal."""
    from rich.cells import cell_len, set_cell_size

    cells = 2 * get_terminal_size().columns
    text = escape_controls(text.replace("\n", "\\n"))
    return text if cell_len(text) <= cells else f"{set_cell_size(text, cells - 1).rstrip()}…"


def print_nearest(queries: list[dict[str, Any]]) -> None:
    """The texts that are nearest to each query, below it."""
    for query in queries:
        sys.stdout.write(f"\n{escape_controls(query['query'])}\n")
        print_similar(query["nearest"])


def print_similar(records: list[dict[str, Any]]) -> None:
    """A line for each, with its similarity."""
    for record in records:
        cells = {name: cell for name, cell in record.items() if name != "similarity"}
        sys.stdout.write(f"  {record['similarity']:.3f}  {line_of(cells)}\n")


def line_of(cells: dict[str, Any]) -> str:
    """Id, title, kept columns and text; not the title of a text that begins with it, as that of a document does."""
    is_shown = {name: cell is not None for name, cell in cells.items()}
    if str(cells.get("text", "")).startswith(str(cells.get("title", ""))):
        is_shown["title"] = False
    line = "  ".join(str(cell) for name, cell in cells.items() if is_shown[name])
    return two_lines(line) if sys.stdout.isatty() else escape_controls(line)
