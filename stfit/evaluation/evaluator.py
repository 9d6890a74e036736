"""The evaluators a recipe can choose from."""

from __future__ import annotations

from typing import Annotated

from stfit.evaluation.similarity import Similarity
from stfit.evaluation.triplet import Triplet
from stfit.spec import CHOICE

Evaluator = Annotated[Similarity | Triplet, CHOICE]
