"""Does the similarity of two texts' embeddings rise with their gold score?"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.errors import DataError
from stfit.evaluation.base import Embed, EvaluatorBase, score_pairs
from stfit.evaluation.statistic import Statistic
from stfit.similarity import SIMILARITIES


class Similarity(EvaluatorBase):
    """Correlation between the similarity of two sentences and their gold score, over labelled pairs."""

    aliases: ClassVar[tuple[str, ...]] = ("EmbeddingSimilarityEvaluator",)
    type: Literal["similarity"] = "similarity"
    format: ClassVar[str] = "labeled_pair"
    main_metric: ClassVar[str] = "spearman"
    metrics: ClassVar[list[str]] = [f"{kind}_{name}" for kind in ("spearman", "pearson") for name in SIMILARITIES]

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """`spearman_<similarity>` and `pearson_<similarity>`, each in [-1, 1]; 0 where all similarities are equal."""
        gold = rows.label
        if gold is None or len(gold) < 2 or np.ptp(gold) == 0:
            raise DataError(
                f"evaluator `{self.label}` needs rows with different labels: a correlation with a constant is undefined"
            )
        one, other = (embed(role, rows.column(role)) for role in ("sentence1", "sentence2"))
        found = {}
        for name, score_r in score_pairs(one, other).items():
            found[f"spearman_{name}"] = spearman(gold, score_r)
            found[f"pearson_{name}"] = pearson(gold, score_r)
        return found


def pearson(one_r: np.ndarray, other_r: np.ndarray) -> Statistic:
    """Pearson's correlation."""
    one_r, other_r = one_r.astype(np.float64), other_r.astype(np.float64)
    return Statistic(len(one_r), lambda weight_r: _compute_correlation(one_r, other_r, weight_r))


def spearman(one_r: np.ndarray, other_r: np.ndarray) -> Statistic:
    """Spearman's correlation: Pearson's of the ranks, where equal values share their mean rank."""
    groups = [np.unique(values, return_inverse=True)[1] for values in (one_r, other_r)]

    def at(weight_r: np.ndarray) -> float:
        one, other = (compute_ranks(group_r, weight_r) for group_r in groups)
        return _compute_correlation(one, other, weight_r)

    return Statistic(len(one_r), at)


def compute_ranks(group_r: np.ndarray, weight_r: np.ndarray) -> np.ndarray:
    """Mean rank of each row, from 0; `group_r` numbers the distinct values from the lowest."""
    size_g = np.bincount(group_r, weight_r)
    ranks: np.ndarray = (size_g.cumsum() - (size_g + 1) / 2)[group_r]
    return ranks


def _compute_correlation(one_r: np.ndarray, other_r: np.ndarray, weight_r: np.ndarray) -> float:
    """Pearson's correlation of weighted rows; 0 where one side is constant (a collapsed model)."""
    there_r = weight_r > 0
    if np.ptp(one_r[there_r]) == 0 or np.ptp(other_r[there_r]) == 0:  # what is left of their means would be noise
        return 0.0
    total = weight_r.sum()
    one_r, other_r = (values_r - weight_r @ values_r / total for values_r in (one_r, other_r))
    spread = np.sqrt((weight_r @ one_r**2) * (weight_r @ other_r**2))
    return float(weight_r @ (one_r * other_r) / spread)
