"""Row filters: `where`, and the holdout."""

from typing import Any

import numpy as np

from stfit.data.mapping.cells import is_missing, number_in
from stfit.data.mapping.selectors import select
from stfit.data.source import Condition, Holdout, Scalar
from stfit.data.table import Table
from stfit.errors import DataError


def filter_rows(table: Table, where: dict[str, Scalar | list[Scalar] | Condition]) -> Table:
    """The rows that meet all conditions. Raises DataError if there are none."""
    if kept := matching(table, where):
        return kept
    raise DataError(f"`where` drops all {len(table)} rows: check the values of {', '.join(where)}")


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
