"""A metric as a function of row weights, so that a comparison can resample rows.

Tensor names: r = rows (resampled units: pairs, queries or texts), g = groups of equal score, highest first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Statistic:
    """A metric of some rows. `at(weight_r)` is its value if row i occurs weight_r[i] times."""

    rows: int
    at: Callable[[np.ndarray], float]
    value_r: np.ndarray | None = None
    """The value of each row, if the metric is their mean."""

    @property
    def value(self) -> float:
        return float(self.at(np.ones(self.rows)))


def mean_of(value_r: np.ndarray) -> Statistic:
    value_r = np.asarray(value_r, dtype=np.float64)
    return Statistic(len(value_r), lambda weight_r: float(weight_r @ value_r / weight_r.sum()), value_r)


def mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several metrics of the same rows."""
    values = [each.value_r for each in statistics if each.value_r is not None]
    if len(values) == len(statistics):
        return mean_of(np.mean(values, axis=0))
    return Statistic(statistics[0].rows, lambda weight_r: float(np.mean([each.at(weight_r) for each in statistics])))


def mean_over_parts(parts: Sequence[Statistic]) -> Statistic:
    """The mean of several metrics of rows of their own, each as important; of parts with no drawn row, none counts.

    Without rows to resample if one of them has none.
    """
    if not all(part.rows for part in parts):
        return Statistic(0, lambda weight_r: float(np.mean([part.value for part in parts])))
    ends = np.cumsum([part.rows for part in parts])[:-1]

    def at(weight_r: np.ndarray) -> float:
        weights = zip(parts, np.split(weight_r, ends), strict=True)
        return float(np.mean([part.at(own_r) for part, own_r in weights if own_r.any()]))

    return Statistic(sum(part.rows for part in parts), at)


class Ranking:
    """Rows in descending order of score, grouped by equal score, with their binary labels."""

    def __init__(self, score_r: np.ndarray, right_r: np.ndarray) -> None:
        self.group_r = np.unique(-score_r, return_inverse=True)[1]
        self.right_r = right_r.astype(np.float64)

    def counts(self, weight_r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cumulative counts from the highest score to each group: positive rows [g] and all rows [g]."""
        right_g = np.bincount(self.group_r, weight_r * self.right_r).cumsum()
        return right_g, np.bincount(self.group_r, weight_r).cumsum()


def average_precision(right_g: np.ndarray, all_g: np.ndarray, right: float) -> float:
    """Mean precision over the `right` positive rows; rows of equal score share one threshold, as in scikit-learn."""
    gained_g = np.diff(right_g, prepend=0.0)
    return float((gained_g * right_g / np.maximum(all_g, 1)).sum() / right) if right else 0.0


def best_f1(right_g: np.ndarray, all_g: np.ndarray, right: float) -> tuple[float, float, float, int]:
    """Best F1 over all thresholds, its precision, recall and group; of tied groups, the first."""
    if not right:
        return 0.0, 0.0, 0.0, 0
    precision_g, recall_g = right_g / np.maximum(all_g, 1), right_g / right
    both_g = precision_g + recall_g
    f1_g = 2 * precision_g * recall_g / np.where(both_g == 0, 1, both_g)
    best = int(f1_g.argmax())
    return float(f1_g[best]), float(precision_g[best]), float(recall_g[best]), best
