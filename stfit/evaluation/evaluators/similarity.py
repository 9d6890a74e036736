"""Does the similarity of two embeddings correlate with a gold score?"""

from typing import Any, ClassVar, Literal

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.errors import DataError
from stfit.evaluation.base import Embed, EvaluatorBase, pair_details, score_pairs
from stfit.evaluation.statistic import Statistic
from stfit.similarity import SIMILARITIES


class Similarity(EvaluatorBase):
    """Correlation between the similarity of two sentences and their gold score, over labeled pairs."""

    aliases = ("EmbeddingSimilarityEvaluator",)
    type: Literal["similarity"] = "similarity"
    format = "labeled_pair"
    main_metric = "spearman"
    metrics: ClassVar[list[str]] = [f"{kind}_{name}" for kind in ("spearman", "pearson") for name in SIMILARITIES]

    def details(self, rows: Examples, embed: Embed, similarity: str) -> list[dict[str, Any]]:
        return pair_details(rows, embed, similarity)

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """`spearman_<similarity>` and `pearson_<similarity>`, each in [-1, 1]; 0 if all similarities are equal."""
        gold = rows.label
        if gold is None or len(gold) < 2 or np.ptp(gold) == 0:
            raise DataError(
                f"evaluator `{self.label}` needs rows with different labels: a correlation with a constant is undefined"
            )
        first, second = (embed(role, rows.column(role)) for role in ("sentence1", "sentence2"))
        metrics = {}
        for name, score_r in score_pairs(first, second).items():
            metrics[f"spearman_{name}"] = spearman(gold, score_r)
            metrics[f"pearson_{name}"] = pearson(gold, score_r)
        return metrics


def pearson(first_r: np.ndarray, second_r: np.ndarray) -> Statistic:
    first_r, second_r = first_r.astype(np.float64), second_r.astype(np.float64)
    return Statistic(len(first_r), lambda weight_r: _compute_correlation(first_r, second_r, weight_r))


def spearman(first_r: np.ndarray, second_r: np.ndarray) -> Statistic:
    """Spearman correlation: Pearson correlation of the ranks; ties share their mean rank."""
    groups = [np.unique(values, return_inverse=True)[1] for values in (first_r, second_r)]

    def at(weight_r: np.ndarray) -> float:
        first, second = (compute_ranks(group_r, weight_r) for group_r in groups)
        return _compute_correlation(first, second, weight_r)

    return Statistic(len(first_r), at)


def compute_ranks(group_r: np.ndarray, weight_r: np.ndarray) -> np.ndarray:
    """Mean rank of each row, from 0; `group_r` numbers the distinct values from the lowest."""
    size_g = np.bincount(group_r, weight_r)
    return (size_g.cumsum() - (size_g + 1) / 2)[group_r]


def _compute_correlation(first_r: np.ndarray, second_r: np.ndarray, weight_r: np.ndarray) -> float:
    """Pearson correlation of weighted rows; 0 if one side is constant (a collapsed model)."""
    drawn_r = weight_r > 0
    if np.ptp(first_r[drawn_r]) == 0 or np.ptp(second_r[drawn_r]) == 0:  # the rest would be rounding noise
        return 0.0
    total = weight_r.sum()
    first_r, second_r = (values_r - weight_r @ values_r / total for values_r in (first_r, second_r))
    spread = np.sqrt((weight_r @ first_r**2) * (weight_r @ second_r**2))
    return float(weight_r @ (first_r * second_r) / spread)
