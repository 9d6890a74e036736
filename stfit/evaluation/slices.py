"""Slices: the rows of an evaluator that share a value of a column, measured separately.

A slice has the metrics `NAME[VALUE]/METRIC`, and the lowest of all slices is `NAME[worst]/METRIC`. Every metric is a
function of row weights, so that a slice is the metric with the weight 0 for all other rows: what is searched, and what
is learned from, stays the whole.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stfit.errors import DataError, Problem, did_you_mean
from stfit.evaluation.bootstrap import interval
from stfit.evaluation.statistic import Statistic

WORST = "worst"
NO_VALUE = "none"
MIN_ROWS = 2
"""Mean number of rows below which slices say nothing."""


def slice_names(values: Iterable[object]) -> list[str]:
    """The name of each row's slice: its value without brackets and line breaks, `none` for an empty one."""
    return [" ".join(_text(value).replace("[", "(").replace("]", ")").split()) or NO_VALUE for value in values]


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)  # NaN differs from itself


def require_slices(column: str, names: Sequence[str]) -> None:
    """Raises DataError for more slices than the rows allow, or a slice that is called `worst`."""
    distinct = set(names)
    if len(distinct) * MIN_ROWS > len(names):
        found = f"`{column}` has {len(distinct)} values in {len(names)} rows"
        raise DataError(Problem(f"{found}, which are no slices: choose another column", "slices", key="by"))
    if WORST in distinct:
        message = f"`{column}` has the value `{WORST}`, which stands for the lowest metric of all slices: rename it"
        raise DataError(Problem(message, "slices", key="by"))


def require_slice(metric: str, label: str, names: Sequence[str] | None) -> None:
    """Raises DataError for a metric of the evaluator `label` in a slice that its rows do not have."""
    name = slice_of(metric, label)
    if name is not None and name not in (WORST, *(names or ())):
        known = sorted(set(names or ()))
        raise DataError(Problem(f"evaluator `{label}` has no slice `{name}`: {did_you_mean(name, known)}", "slices"))


def sliced(statistics: dict[str, Statistic], names: Sequence[str]) -> dict[str, dict[str, Statistic]]:
    """Slice, and `worst` -> metric -> statistic; only of metrics that are resampled by these rows."""
    name_r = np.array(names, dtype=object)
    inside = {name: np.flatnonzero(name_r == name) for name in sorted(set(names))}
    by_row = {metric: statistic for metric, statistic in statistics.items() if statistic.rows == len(names)}
    found = {
        name: {metric: _of_slice(statistic, rows) for metric, statistic in by_row.items()}
        for name, rows in inside.items()
    }
    parts = list(inside.values())
    return found | {WORST: {metric: _of_worst(statistic, parts) for metric, statistic in by_row.items()}}


def summarize_slices(statistics: dict[str, Statistic], metric: str, label: str) -> dict[str, dict[str, Any]]:
    """Slice -> rows, value and the bounds of its 95% interval (None for too few rows), of a metric of all rows."""
    summary = {}
    for name, statistic in statistics.items():
        part = slice_of(name, label)
        if part is not None and part != WORST and with_slice(name, label, None) == metric:
            low, high = interval(statistic) or (None, None)
            summary[part] = {"rows": statistic.rows, "value": statistic.value, "low": low, "high": high}
    return summary


def _of_slice(whole: Statistic, rows: np.ndarray) -> Statistic:
    def at(weight_s: np.ndarray) -> float:
        weight_r = np.zeros(whole.rows)
        weight_r[rows] = weight_s
        return whole.at(weight_r)

    return Statistic(len(rows), at, None if whole.value_r is None else whole.value_r[rows])


def _of_worst(whole: Statistic, slices: list[np.ndarray]) -> Statistic:
    """The lowest of the slices that are drawn at all."""

    def at(weight_r: np.ndarray) -> float:
        drawn = [rows for rows in slices if weight_r[rows].any()]
        return min(_of_slice(whole, rows).at(weight_r[rows]) for rows in drawn)

    return Statistic(whole.rows, at)


def slice_of(metric: str, label: str) -> str | None:
    """The slice in the name of a metric of the evaluator `label`; None if it has none."""
    match = re.match(r"\[(.*?)\](?=[/@#])", metric.removeprefix(label))
    return match[1] if match and metric.startswith(label) else None


def with_slice(metric: str, label: str, name: str | None) -> str:
    """The same metric of another slice, or of all rows."""
    rest = metric.removeprefix(label)
    found = slice_of(metric, label)
    rest = rest.removeprefix(f"[{found}]") if found is not None else rest
    return f"{label}{'' if name is None else f'[{name}]'}{rest}"
