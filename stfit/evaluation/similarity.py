"""Does the similarity of two texts' embeddings rise with their gold score?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from stfit.errors import DataError
from stfit.evaluation.pairwise import SIMILARITIES
from stfit.evaluation.source import EvaluationSource
from stfit.lazy import lazy

if TYPE_CHECKING:
    from scipy import stats

    from stfit.data.examples import Examples
else:
    stats = lazy("scipy.stats")

Vectors = np.ndarray
Embed = Callable[[str], Vectors]
"""Role -> [rows, dim], in the order of the examples."""


class Similarity(EvaluationSource):
    """Correlation between the similarity of two sentences and their gold score, over labelled pairs."""

    type: Literal["similarity"] = "similarity"
    format: ClassVar[str] = "labeled_pair"
    main_metric: ClassVar[str] = "spearman"
    metrics: ClassVar[list[str]] = [
        f"{kind}_{similarity}"
        for kind in (
            "spearman",
            "pearson",
        )
        for similarity in SIMILARITIES
    ]

    def measure(self, examples: Examples, embed: Embed) -> dict[str, float]:
        """`spearman_<similarity>` and `pearson_<similarity>`, each in [-1, 1]."""
        gold = examples.label
        if gold is None or len(gold) < 2 or np.ptp(gold) == 0:
            raise DataError(
                f"evaluator `{self.label}` needs rows with different labels: a correlation with a constant is undefined"
            )
        one, other = embed("sentence1"), embed("sentence2")
        found: dict[str, float] = {}
        for name, similarity in SIMILARITIES.items():
            scores = similarity(one, other)
            if np.ptp(scores) == 0:  # a collapsed model; scipy would warn and return nan
                found |= {f"spearman_{name}": 0.0, f"pearson_{name}": 0.0}
                continue
            found[f"spearman_{name}"] = float(stats.spearmanr(gold, scores).statistic)
            found[f"pearson_{name}"] = float(stats.pearsonr(gold, scores).statistic)
        return found
