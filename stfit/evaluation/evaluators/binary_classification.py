"""Can a threshold on the similarity separate similar pairs from others?"""

from typing import Any, ClassVar, Literal

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.data.table import name_rows
from stfit.errors import DataError, Problem
from stfit.evaluation.base import Embed, EvaluatorBase, TrainAndHoldout, pair_details, score_pairs
from stfit.evaluation.statistic import Ranking, Statistic, average_precision, best_f1
from stfit.similarity import SIMILARITIES


class BinaryClassification(EvaluatorBase):
    """Classifies pairs with label 1 (similar) or 0 by a threshold on their similarity.

    Accuracy uses the threshold with the best accuracy, the other metrics the threshold with the best F1.
    """

    aliases = ("BinaryClassificationEvaluator",)
    type: Literal["binary_classification"] = "binary_classification"
    format = "labeled_pair"
    main_metric = "ap"
    metrics: ClassVar[list[str]] = [
        f"{kind}_{name}" for kind in ("ap", "accuracy", "f1", "precision", "recall", "mcc") for name in SIMILARITIES
    ]

    def load(self, seed: int, training: TrainAndHoldout | None) -> Examples:
        rows: Examples = super().load(seed, training)
        self._binary_labels(rows)
        return rows

    def details(self, rows: Examples, embed: Embed, similarity: str) -> list[dict[str, Any]]:
        return pair_details(rows, embed, similarity)

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Pairs of equal similarity are on the same side of every threshold; of tied thresholds, the highest counts."""
        label = self._binary_labels(rows)
        first, second = (embed(role, rows.column(role)) for role in ("sentence1", "sentence2"))
        rankings = {name: Ranking(score_r, label) for name, score_r in score_pairs(first, second).items()}
        return {f"{kind}_{name}": statistic_of(kind, ranking) for name, ranking in rankings.items() for kind in KINDS}

    def _binary_labels(self, rows: Examples) -> np.ndarray:
        label = rows.label
        assert label is not None  # the format has one
        if len(wrong := rows.row[~np.isin(label, (0, 1))]):
            message = f"evaluator `{self.label}` needs labels 0 or 1; other labels are in {name_rows(wrong.tolist())}"
            raise DataError(Problem(f"{message}: see `label_map`", "bad-label", row=int(wrong[0]), key="columns.label"))
        if label.min() == label.max():
            message = f"evaluator `{self.label}` needs both labels, 0 and 1, but all {len(label)} are {label[0]:g}"
            raise DataError(message)
        return label


def statistic_of(kind: str, ranking: Ranking) -> Statistic:
    def at(weight_r: np.ndarray) -> float:
        right_g, all_g = ranking.counts(weight_r)
        return KINDS[kind](right_g, all_g, float(right_g[-1]))

    return Statistic(len(ranking.group_r), at)


def _best_accuracy(right_g: np.ndarray, all_g: np.ndarray, right: float) -> float:
    """Accuracy at the best threshold, which may be above all pairs."""
    wrong_g = all_g - right_g
    correct_g = right_g + (wrong_g[-1] - wrong_g)
    return float(max(correct_g.max(), wrong_g[-1]) / all_g[-1])


def _best_mcc(right_g: np.ndarray, all_g: np.ndarray, right: float) -> float:
    """Matthews correlation at the threshold with the best F1; 0 if all pairs are on one side."""
    *_, best = best_f1(right_g, all_g, right)
    chosen, hits, total = all_g[best], right_g[best], all_g[-1]
    spread = np.sqrt(chosen * (total - chosen) * right * (total - right))
    return float((hits * total - chosen * right) / spread) if spread > 0 else 0.0


KINDS = {
    "ap": average_precision,
    "accuracy": _best_accuracy,
    "f1": lambda *counts: best_f1(*counts)[0],
    "precision": lambda *counts: best_f1(*counts)[1],
    "recall": lambda *counts: best_f1(*counts)[2],
    "mcc": _best_mcc,
}
