"""The summary page of a GitHub Actions job."""

import os
from contextlib import suppress
from pathlib import Path

from stfit.distributed import is_rank_zero


def add_to_summary(title: str, header: list[str], rows: list[list[str]], note: str = "") -> None:
    """Does nothing outside of GitHub Actions. A summary that can't be written must not fail the training."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path or not is_rank_zero():
        return
    table = "\n".join(map(_table_row, [header, [":--", *["--:"] * (len(header) - 1)], *rows]))
    parts = [f"### {title}", table, *([note] if note else [])]
    with suppress(OSError), Path(path).open("a", encoding="utf-8") as file:
        file.write("\n\n".join(parts) + "\n\n")


def _table_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
