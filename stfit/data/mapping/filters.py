"""Row filters: `where`, and the holdout."""

from collections import Counter
from difflib import get_close_matches
from typing import Any

import numpy as np

from stfit.data.mapping.cells import is_missing, number_in, plain_number, without_point
from stfit.data.mapping.selectors import select
from stfit.data.source import Condition, Holdout, Scalar
from stfit.data.table import Table
from stfit.errors import DataError
from stfit.io.display import shorten, single_line
from stfit.io.yaml_text import to_hint

SHOWN_VALUES = 10
SHOWN_CHARACTERS = 40


def filter_rows(table: Table, where: dict[str, Scalar | list[Scalar] | Condition]) -> Table:
    """The rows that meet all conditions. Raises DataError if there are none."""
    if kept := matching(table, where):
        return kept
    raise DataError(f"`where` drops all {len(table)} rows: {_reason(table, where)}")


def _reason(table: Table, where: dict[str, Scalar | list[Scalar] | Condition]) -> str:
    """The condition that no row meets, and what is there instead."""
    met = {}
    for selector, condition in where.items():
        cells = select(table, selector)
        met[selector] = sum(_passes(cell, condition) for cell in cells)
        if not met[selector]:
            return f"no row meets `{selector}: {_written(condition)}`; {_contents(cells, condition)}"
    counts = ", ".join(f"`{selector}` by {rows}" for selector, rows in met.items())
    return f"each condition is met by some rows ({counts}), but no row meets all"


def _written(condition: Scalar | list[Scalar] | Condition) -> str:
    if not isinstance(condition, Condition):
        return to_hint(condition)
    given = condition.model_dump(exclude_none=True, by_alias=True)
    return to_hint({key: without_point(value) for key, value in given.items()})


def _contents(cells: list[Any], condition: Scalar | list[Scalar] | Condition) -> str:
    """The values of a column, the most frequent first, and the one that was meant."""
    if isinstance(condition, Condition) and (condition.min, condition.max) != (None, None):
        numbers = [number for cell in cells if (number := number_in(cell)) is not None]
        return f"its numbers are {min(numbers):g} to {max(numbers):g}" if numbers else "it holds no numbers"
    counts = Counter(map(_shown, cells)).most_common()
    listed = ", ".join(f"{value} ({rows})" for value, rows in counts[:SHOWN_VALUES])
    more = f" and {len(counts) - SHOWN_VALUES} more" if len(counts) > SHOWN_VALUES else ""
    wanted = [] if isinstance(condition, Condition) else condition if isinstance(condition, list) else [condition]
    meant = [match for value in wanted if (match := _closest(value, [value for value, _ in counts]))]
    are_numbers = any(isinstance(value, str) for value in wanted) and all(
        is_missing(cell) or isinstance(plain_number(cell), int | float) for cell in cells
    )
    kind = "numbers, which have no quotes: " if are_numbers else ""
    hint = f": did you mean {', '.join(dict.fromkeys(meant))}?" if meant else ""
    return f"its values are {kind}{listed}{more}{hint}"


def _shown(cell: Any) -> str:
    """A cell as a recipe writes it."""
    cell = plain_number(cell)
    is_scalar = cell is None or isinstance(cell, str | int | float)
    return shorten(single_line(to_hint(cell) if is_scalar else str(cell)), SHOWN_CHARACTERS)


def _closest(value: Scalar, shown: list[str]) -> str | None:
    """The shown value that only differs in case, quotes or space, or else the one most like it."""
    plain = {cell.strip('" ').casefold(): cell for cell in reversed(shown)}
    matches = get_close_matches(str(value).strip().casefold(), plain, n=1, cutoff=0.6)
    return plain[matches[0]] if matches else None


def matching(table: Table, where: dict[str, Scalar | list[Scalar] | Condition]) -> Table:
    if not where:
        return table
    keep = np.ones(len(table), dtype=bool)
    for selector, condition in where.items():
        keep &= np.array([_passes(cell, condition) for cell in select(table, selector)], dtype=bool)
    return table.take(np.flatnonzero(keep))


def _passes(cell: Any, condition: Scalar | list[Scalar] | Condition) -> bool:
    if not isinstance(condition, Condition):
        return _is_one_of(cell, condition)
    if condition.present is not None and condition.present == is_missing(cell):
        return False
    if condition.not_ is not None and _is_one_of(cell, condition.not_):
        return False
    if condition.min is None and condition.max is None:
        return True
    number = number_in(cell)
    low = -np.inf if condition.min is None else condition.min
    high = np.inf if condition.max is None else condition.max
    return number is not None and bool(low <= number <= high)


def _is_one_of(cell: Any, values: Scalar | list[Scalar]) -> bool:
    return any(_equals(cell, value) for value in (values if isinstance(values, list) else [values]))


def _equals(cell: Any, value: Scalar) -> bool:
    """A number or boolean in the recipe also equals its text, as in a CSV file; no boolean equals a number."""
    if isinstance(cell, bool) or isinstance(value, bool):
        return str(cell).lower() == str(value).lower()
    return cell == value or (not isinstance(value, str) and number_in(cell) == value)


def choose_holdout(table: Table, holdout: Holdout) -> np.ndarray:
    """Which rows are held out: a mask [rows]. Raises DataError if one side would be empty.

    With `by`, groups of equal values are sampled while they fit into the number of rows; if none fits, the smallest.
    """
    size = holdout.rows or max(1, round(len(table) * (holdout.fraction or 0)))
    groups = np.arange(len(table))
    if holdout.by is not None:
        groups = np.unique([repr(value) for value in select(table, holdout.by)], return_inverse=True)[1]
    sizes = np.bincount(groups)
    chosen, held = [], 0
    for group in np.random.default_rng(holdout.seed).permutation(len(sizes)).tolist():
        if held + sizes[group] <= size:
            chosen.append(group)
            held += sizes[group]
    mask = np.isin(groups, chosen or [int(np.argmin(sizes))])
    if mask.all() or not mask.any():
        grouped = f" in {len(sizes)} groups of equal `{holdout.by}`" if holdout.by else ""
        raise DataError(f"a holdout of {size} of {len(table)} rows{grouped} leaves no rows to train on")
    return mask
