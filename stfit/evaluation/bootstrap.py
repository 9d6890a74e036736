"""Is a difference between two models more than chance?

Paired bootstrap: the rows of an evaluator (pairs, queries or texts) are resampled with replacement, the same rows for
both models, and the difference of the metric is computed each time. Efron and Tibshirani, 1993; for metrics of language
models: Berg-Kirkpatrick, Burkett and Klein, 2012, https://aclanthology.org/D12-1091.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Literal, TypedDict

import numpy as np

from stfit.evaluation.statistic import Statistic, mean_statistic

RESAMPLES = 1000
INTERVAL = 0.95
TAIL = (1 - INTERVAL) / 2
DRAWN_TOGETHER = 1_000_000
"""Rows."""

Verdict = Literal["better", "worse", "no evidence"]


class BootstrapDraws(TypedDict):
    rows: str | None
    values: list[float]
    """Values of `resample`; draws of equal rows are identical."""


@dataclass(frozen=True)
class Comparison:
    value: float
    other: float
    gain: float
    low: float | None
    """Bounds of the 95% interval of the gain; None if the metric has no rows to resample, or too few."""
    high: float | None
    verdict: Verdict | None


def min_rows(chance: float) -> int:
    """With fewer rows, two equal models can differ in all of them in one direction with a higher probability."""
    return ceil(-log2(chance) - 1e-9)


def compare(model: Statistic, baseline: Statistic) -> Comparison:
    """The gain of `model` over `baseline` with its verdict. Both must have the same rows in the same order."""
    gains = resample(model) - resample(baseline) if model.rows >= min_rows(TAIL) else None
    return _classify_gain(model.value, baseline.value, gains)


def _classify_gain(value: float, baseline: float, gains: np.ndarray | None) -> Comparison:
    if gains is None:
        return Comparison(value, baseline, value - baseline, None, None, None)
    low, high = map(float, np.quantile(gains, [TAIL, 1 - TAIL]))
    verdict: Verdict = "better" if low > 0 else "worse" if high < 0 else "no evidence"
    return Comparison(value, baseline, value - baseline, low, high, verdict)


def lower_bound(model: Statistic, baseline: Statistic, confidence: float, draws: int = RESAMPLES) -> float:
    """One-sided lower bound of the gain of `model` at this confidence; the plain gain if there are no rows.

    The bound is the highest gain that at most 1 - confidence of the draws do not exceed. Models that differ in few rows
    tie in many draws: if more draws than that tie at the lowest gain, the bound is one step of the metric below it. An
    identical model has a bound of 0.
    """
    if not model.rows:
        return model.value - baseline.value
    gains, counts = np.unique((resample(model, draws) - resample(baseline, draws)).round(12), return_counts=True)
    within = int(np.searchsorted(counts.cumsum() / draws, 1 - confidence + 1e-9, side="right"))
    if within:
        return float(gains[within - 1])
    return float(gains[0] - (gains[1] - gains[0] if len(gains) > 1 else 0.0))


def lower_bound_over_seeds(
    models: Sequence[Statistic], baseline: Statistic, confidence: float, is_drawn: bool
) -> float:
    """One-sided lower bound of the mean gain of at least two models, which differ in their seed, over `baseline`.

    Two kinds of luck have a margin each: that of the rows (bootstrap, normal quantile) and that of the seeds, of which
    few are known (Student's quantile). Independent margins add up as squares (Zou and Donner, 2008,
    https://doi.org/10.1002/sim.3095). `is_drawn`: the baseline is the model of one seed too, and another seed would
    have been better or worse by as much.
    """
    from scipy.special import ndtri, stdtrit  # slow to load

    mean, seeds = mean_statistic(models), len(models)
    of_rows = float((resample(mean) - resample(baseline)).var()) if mean.rows else 0.0
    of_seeds = float(np.var([model.value for model in models], ddof=1)) * (1 / seeds + is_drawn)
    margins = ndtri(confidence) ** 2 * of_rows + stdtrit(seeds - 1, confidence) ** 2 * of_seeds
    return mean.value - baseline.value - float(margins) ** 0.5


def resample(statistic: Statistic, draws: int = RESAMPLES) -> np.ndarray:
    """Values [draws] on resampled rows. Every call uses the same draws, so verdicts are reproducible."""
    random, value_r = np.random.default_rng(0), statistic.value_r
    values = np.empty(draws)
    if value_r is not None:  # a mean needs no weights; many draws at once are the same draws
        together = max(1, DRAWN_TOGETHER // statistic.rows)
        for start in range(0, draws, together):
            rows = random.integers(0, statistic.rows, (min(together, draws - start), statistic.rows))
            values[start : start + len(rows)] = value_r[rows].mean(axis=1)
        return values
    for draw in range(draws):
        rows = random.integers(0, statistic.rows, statistic.rows)
        values[draw] = statistic.at(np.bincount(rows, minlength=statistic.rows).astype(np.float64))
    return values


def interval(statistic: Statistic) -> tuple[float, float] | None:
    """The 95% interval of a value; None for too few rows."""
    if statistic.rows < min_rows(TAIL):
        return None
    low, high = np.quantile(resample(statistic), [TAIL, 1 - TAIL])
    return float(low), float(high)


def compare_draws(
    value: float, baseline: float, draws: BootstrapDraws | None, baseline_draws: BootstrapDraws | None
) -> Comparison:
    """Like `compare`, for two values resampled at different times; without a verdict if their rows differ."""
    if not draws or not baseline_draws or draws["rows"] is None or draws["rows"] != baseline_draws["rows"]:
        return _classify_gain(value, baseline, None)
    return _classify_gain(value, baseline, np.array(draws["values"]) - np.array(baseline_draws["values"]))
