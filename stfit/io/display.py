"""Texts and numbers as pages, cards and tables show them."""

import unicodedata

MAX_CHARACTERS = 300
"""Longer texts are truncated."""


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def single_line(text: str) -> str:
    """Collapse whitespace, truncate, and spell out control and direction characters.

    Such a character could hide or reorder the text that follows it.
    """
    line = shorten(" ".join(text.split()), MAX_CHARACTERS)
    return "".join(f"\\u{ord(char):04x}" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char for char in line)


def format_metric(value: float | None) -> str:
    """A metric with four decimals; empty for None."""
    return "" if value is None else f"{value:.4f}"


def format_gain(gain: float | None) -> str:
    """A difference of metrics with its sign; empty for None."""
    return "" if gain is None else f"{gain:+.4f}"


def format_interval(interval: tuple[float, float] | None) -> str:
    """The ends of a confidence interval; empty for None."""
    return "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def format_duration(seconds: float) -> str:
    """Seconds, minutes or hours, depending on the length."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
