"""The summary page of a CI job: markdown that is added to the file which the CI names in the environment."""

from __future__ import annotations

import os
from pathlib import Path

from stfit.distributed import is_rank_zero

VARIABLE = "GITHUB_STEP_SUMMARY"
"""https://docs.github.com/actions/writing-workflows/choosing-what-your-workflow-does/workflow-commands-for-github-actions"""


def add_to_summary(title: str, header: list[str], rows: list[list[str]], note: str = "") -> None:
    """Add a heading, a table and a line below it; does nothing where no summary is wanted, or another process adds it.

    A summary that can't be written is no reason to lose the training it is about: the error is left out.
    """
    path = os.environ.get(VARIABLE)
    if not path or not is_rank_zero():
        return
    lines = [
        f"### {title}",
        "",
        _row_of(header),
        _row_of([":--", *["--:"] * (len(header) - 1)]),
        *map(_row_of, rows),
        "",
    ]
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write("\n".join([*lines, *([note, ""] if note else [])]) + "\n")
    except OSError:
        return


def _row_of(cells: list[str]) -> str:
    """One line of a markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
