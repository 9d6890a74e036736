"""Is the most similar text of another language the translation?"""

from typing import ClassVar, Literal

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.evaluation.base import Embed, EvaluatorBase
from stfit.evaluation.statistic import Statistic, mean_of
from stfit.neighbors.exact import nearest


class Translation(EvaluatorBase):
    """Share of texts whose most similar text of the other language is their translation.

    The two languages are the columns `anchor` and `positive`; the model's similarity function is used.
    """

    aliases = ("TranslationEvaluator",)
    type: Literal["translation"] = "translation"
    format = "positive_pair"
    symmetric = True
    per_similarity = False
    main_metric = "mean_accuracy"
    metrics: ClassVar[list[str]] = ["mean_accuracy", "src2trg_accuracy", "trg2src_accuracy"]

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Accuracy from anchors to positives, back, and their mean; the first of equally similar texts counts."""
        sources, targets = rows.column("anchor"), rows.column("positive")
        source, target = embed("anchor", sources), embed("positive", targets)
        forward = _top1_match(source, target, targets, similarity)
        backward = _top1_match(target, source, sources, similarity)
        return {
            "mean_accuracy": mean_of((forward + backward) / 2),
            "src2trg_accuracy": mean_of(forward),
            "trg2src_accuracy": mean_of(backward),
        }


def _top1_match(source: np.ndarray, target: np.ndarray, targets: list[str], similarity: str) -> np.ndarray:
    """1 for each row whose most similar target is its own (or the same text in another row), else 0."""
    _, index_rk = nearest(source, [target], 1, similarity)
    texts = np.array(targets, dtype=object)
    return (texts[index_rk[:, 0]] == texts).astype(np.float64)
