"""Markdown that displays text of unknown origin literally. The results are markup, which templates do not escape."""

import re

from markupsafe import Markup

from stfit.io.display import single_line


def plain(text: str) -> Markup:
    """Text in which neither Markdown nor HTML finds syntax. Not for the start of a line."""
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", single_line(text).replace("&", "&amp;").replace("<", "&lt;"))
    return Markup(escaped.replace("://", ":&#47;&#47;").replace("@", "&#64;"))


def code(text: str) -> Markup:
    shown = single_line(text).replace("|", "\\|")
    ticks = "`" * (_longest_run(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") or not shown else ""
    return Markup(f"{ticks}{space}{shown}{space}{ticks}")


def block(text: str, language: str = "") -> Markup:
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markup(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
