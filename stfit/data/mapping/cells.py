"""What a single cell of a table means: whether it is missing, and which number it holds."""

import math
from decimal import Decimal
from typing import Any


def is_missing(cell: Any) -> bool:
    """Null, an empty text, or NaN, which pandas and some writers of JSON write for null."""
    return cell is None or cell == "" or (isinstance(cell, float | Decimal) and math.isnan(cell))


def without_point(cell: Any) -> Any:
    """A whole number as int: pandas writes a column with a gap as floats, and databases write decimals."""
    is_whole = isinstance(cell, float | Decimal) and math.isfinite(cell) and cell == int(cell)
    return int(cell) if is_whole else cell


def as_text(cell: Any) -> str:
    """An id or a text as it is compared: empty if it is missing."""
    return "" if is_missing(cell) else str(without_point(cell))


def plain_number(cell: Any) -> Any:
    """A decimal of a database as int or float; any other cell as it is."""
    whole = without_point(cell) if isinstance(cell, Decimal) else cell
    return float(whole) if isinstance(whole, Decimal) else whole


def number_in(cell: Any) -> float | int | None:
    """The number that a cell is, or that its text writes; None if it is none."""
    if isinstance(cell, int | float | Decimal):
        return plain_number(cell)
    if not isinstance(cell, str) or "_" in cell:  # Python reads 1_2 as 12; in data it is a name
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return None
