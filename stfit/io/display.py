"""Texts and numbers as pages, cards and tables show them."""

import re
import unicodedata

MAX_CHARACTERS = 300


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that move the cursor, command a terminal or reorder what follows; not tabs and line breaks."""


def escape_controls(text: str) -> str:
    """Text from data and files as a terminal can show it."""
    return CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def single_line(text: str) -> str:
    """Spells out control and direction characters, which could hide or reorder the text that follows."""
    line = shorten(" ".join(text.split()), MAX_CHARACTERS)
    return "".join(f"\\u{ord(char):04x}" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char for char in line)


def format_metric(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def format_gain(gain: float | None) -> str:
    return "" if gain is None else f"{gain:+.4f}"


def format_interval(low: float | None, high: float | None, sign: str = "+") -> str:
    return "" if low is None else f"{low:{sign}.4f} to {high:{sign}.4f}"


def format_verdict(verdict: str | None) -> str:
    """`no evidence` is the word of --json; to readers of a table, it sounds as if nothing had been measured."""
    return "maybe chance" if verdict == "no evidence" else verdict or ""


def format_duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
