"""Is an anchor nearer to its positive than to its negative?"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from stfit.evaluation.pairwise import SIMILARITIES
from stfit.evaluation.similarity import Embed
from stfit.evaluation.source import EvaluationSource

if TYPE_CHECKING:
    from stfit.data.examples import Examples


class Triplet(EvaluationSource):
    """Share of triplets whose anchor is nearer to the positive than to every negative."""

    type: Literal["triplet"] = "triplet"
    format: ClassVar[str] = "triplet"
    main_metric: ClassVar[str] = "accuracy"
    metrics: ClassVar[list[str]] = [f"{kind}_{similarity}" for kind in ("accuracy",) for similarity in SIMILARITIES]
    margin: float = Field(0.0, ge=0)
    """The positive has to be nearer by more than this."""

    def measure(self, examples: Examples, embed: Embed) -> dict[str, float]:
        """`accuracy_<similarity>`, in [0, 1]; a tie counts as wrong."""
        anchor, positive = embed("anchor"), embed("positive")
        negatives = {role: embed(role) for role in examples.texts if role.startswith("negative")}
        missing = {role: np.array([text is None for text in examples.texts[role]]) for role in negatives}
        found = {}
        for name, similarity in SIMILARITIES.items():
            to_positive = similarity(anchor, positive)
            right = np.ones(len(anchor), dtype=bool)
            for role, negative in negatives.items():
                right &= missing[role] | (to_positive > similarity(anchor, negative) + self.margin)
            found[f"accuracy_{name}"] = float(right.mean())
        return found
