"""Is a difference between two models more than the luck of the rows they were measured on?

Paired bootstrap: the rows of an evaluator (pairs, queries, texts) are drawn anew with replacement, the same ones for
both models, and the difference of the metric is taken each time. Efron and Tibshirani, 1993; for metrics of language
models: Berg-Kirkpatrick, Burkett and Klein, 2012, https://aclanthology.org/D12-1091.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from stfit.evaluation.statistic import Statistic

RESAMPLES = 1000
INTERVAL = 0.95

Verdict = Literal["better", "worse", "no evidence"]


class BootstrapDraws(TypedDict):
    """A metric as it was measured, written down."""

    rows: str | None
    """Fingerprint of the rows; None where it is not known."""
    values: list[float]
    """Of the rows drawn anew, see `resample`: of the same rows, draw by draw the same ones."""


@dataclass(frozen=True)
class Comparison:
    """A metric of a model beside that of another one."""

    value: float
    other: float
    gain: float
    low: float | None
    """The 95 % interval of the gain; None where the metric has no rows to resample."""
    high: float | None
    verdict: Verdict | None
    """better or worse where the interval lies on one side of 0."""


def compare(own: Statistic, other: Statistic) -> Comparison:
    """The gain of `own` over `other`, and what it is worth. Both have the same rows, in the same order."""
    gains = _resampled_gains(own, other) if own.rows else None
    return _classify_gain(own.value, other.value, gains)


def _classify_gain(value: float, other: float, gains: np.ndarray | None) -> Comparison:
    """What the gain over `other` is worth, by resampled gains; None where there are no rows to resample."""
    if gains is None:
        return Comparison(value, other, value - other, None, None, None)
    tail = (1 - INTERVAL) / 2
    low, high = map(float, np.quantile(gains, [tail, 1 - tail]))
    verdict: Verdict = "better" if low > 0 else "worse" if high < 0 else "no evidence"
    return Comparison(value, other, value - other, low, high, verdict)


def lower_bound(own: Statistic, other: Statistic, confidence: float) -> float:
    """The gain that `own` has at least, with this confidence (one-sided); the plain gain where there are no rows.

    It is the highest gain that at most 1 - confidence of the draws do not exceed. Models that differ in a few rows tie
    in many draws: where more of them tie at the lowest gain of all, the bound lies one step of the metric below it. An
    identical model has a gain of 0 for certain.
    """
    if not own.rows:
        return own.value - other.value
    gains, draws = np.unique(_resampled_gains(own, other).round(12), return_counts=True)
    within = int(np.searchsorted(draws.cumsum() / RESAMPLES, 1 - confidence + 1e-9, side="right"))
    if within:
        return float(gains[within - 1])
    return float(gains[0] - (gains[1] - gains[0] if len(gains) > 1 else 0.0))


def _resampled_gains(own: Statistic, other: Statistic) -> np.ndarray:
    """Gains [RESAMPLES] with the rows drawn anew, the same ones for both."""
    gains: np.ndarray = resample(own, RESAMPLES) - resample(other, RESAMPLES)
    return gains


def resample(statistic: Statistic, draws: int) -> np.ndarray:
    """Values [draws] with the rows drawn anew; the same draws in every call, so that a verdict does not waver."""
    random = np.random.default_rng(0)
    values = np.empty(draws)
    for draw in range(draws):
        drawn = random.integers(0, statistic.rows, statistic.rows)
        values[draw] = statistic.at(np.bincount(drawn, minlength=statistic.rows).astype(np.float64))
    return values


def compare_draws(
    value: float, other: float, drawn: BootstrapDraws | None, other_drawn: BootstrapDraws | None
) -> Comparison:
    """The same of two values that were resampled at different times, where both were measured on the same rows."""
    if not drawn or not other_drawn or drawn["rows"] is None or drawn["rows"] != other_drawn["rows"]:
        return _classify_gain(value, other, None)
    return _classify_gain(value, other, np.array(drawn["values"]) - np.array(other_drawn["values"]))
