"""Is a text nearest to its own translation?"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.evaluation.base import Embed, EvaluatorBase
from stfit.evaluation.knn import nearest
from stfit.evaluation.statistic import Statistic, mean_of


class Translation(EvaluatorBase):
    """Share of texts whose nearest text of the other language is their translation, by the model's own similarity.

    The two languages are the columns `anchor` and `positive`.
    """

    aliases: ClassVar[tuple[str, ...]] = ("TranslationEvaluator",)
    type: Literal["translation"] = "translation"
    format: ClassVar[str] = "positive_pair"
    symmetric: ClassVar[bool] = True
    per_similarity: ClassVar[bool] = False
    main_metric: ClassVar[str] = "mean_accuracy"
    metrics: ClassVar[list[str]] = ["mean_accuracy", "src2trg_accuracy", "trg2src_accuracy"]

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Accuracy from anchors to positives, back, and their mean; of equally near texts, the first is taken."""
        sources, targets = rows.column("anchor"), rows.column("positive")
        source, target = embed("anchor", sources), embed("positive", targets)
        there = _top1_match(source, target, targets, similarity)
        back = _top1_match(target, source, sources, similarity)
        return {
            "mean_accuracy": mean_of((there + back) / 2),
            "src2trg_accuracy": mean_of(there),
            "trg2src_accuracy": mean_of(back),
        }


def _top1_match(source: np.ndarray, target: np.ndarray, targets: list[str], similarity: str) -> np.ndarray:
    """1 where the nearest target of a row's source is the row's own target (or the same text in another row)."""
    _, index_rk = nearest(source, [target], 1, similarity)
    pairs = zip(index_rk[:, 0].tolist(), targets, strict=True)
    return np.array([targets[found] == own for found, own in pairs], dtype=np.float64)
