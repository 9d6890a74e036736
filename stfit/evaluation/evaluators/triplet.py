"""Is an anchor closer to its positive than to its negatives?"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from stfit.data.mapping.examples import Examples
from stfit.evaluation.base import Embed, EvaluatorBase, score_pairs
from stfit.evaluation.statistic import Statistic, mean_of
from stfit.similarity import SIMILARITIES


class TripletAccuracy(EvaluatorBase):
    """Fraction of triplets whose anchor is closer to the positive than to every negative."""

    aliases = ("TripletEvaluator",)
    type: Literal["triplet"] = "triplet"
    format = "triplet"
    main_metric = "accuracy"
    metrics: ClassVar[list[str]] = [f"accuracy_{name}" for name in SIMILARITIES]
    margin: float = Field(0.0, ge=0)
    """The similarity to the positive must be higher by more than this value."""

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        anchor, positive = (embed(role, rows.column(role)) for role in ("anchor", "positive"))
        missing = {role: np.array([text is None for text in rows.texts[role]]) for role in rows.negatives}
        to_positive = score_pairs(anchor, positive)
        to_negative = {role: score_pairs(anchor, embed(role, rows.column(role))) for role in rows.negatives}
        statistics = {}
        for name, score_r in to_positive.items():
            closer = [missing[role] | (score_r > to_negative[role][name] + self.margin) for role in rows.negatives]
            statistics[f"accuracy_{name}"] = mean_of(np.all(closer, axis=0))
        return statistics
