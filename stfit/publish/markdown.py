"""Text of others inside Markdown: it stays text, whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stfit.io.display import single_line


def plain(text: str) -> str:
    """Text without formatting: neither Markdown nor HTML reads anything into it. Not for the start of a line."""
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", single_line(text).replace("&", "&amp;").replace("<", "&lt;"))
    return escaped.replace("://", ":&#47;&#47;").replace("@", "&#64;")


def code(text: str) -> str:
    """Text as inline code, also in a table."""
    shown = single_line(text).replace("|", "\\|")
    ticks = "`" * (_longest_run(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") or not shown else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def block(text: str, language: str = "") -> str:
    """Lines as a code block."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A table; the first column is aligned left, the others right. Cells are Markdown already."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _longest_run(text: str) -> int:
    """Longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
