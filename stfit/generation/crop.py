from functools import partial
from random import Random
from typing import Literal

from pydantic import Field

from stfit.data.mapping.plain_text import WORD
from stfit.generation.answers import Answers
from stfit.generation.base import GeneratorBase, MakePairs, Pair, Passage, of_each

SHARE = (0.1, 0.5)
"""Words of a span, as a share of the passage's: at least and at most."""
MIN_WORDS = 3
"""Of a span, where the passage has twice as many."""


class Crop(GeneratorBase):
    """One span of a passage finds another one, chosen independently (Contriever, https://arxiv.org/abs/2112.09118)."""

    type: Literal["crop"] = "crop"
    per_passage: int = Field(1, gt=0)
    """Pairs of each passage."""

    def open(self, seed: int, answers: Answers) -> MakePairs:
        return of_each(partial(_pairs_of, self), seed)


def _pairs_of(crop: Crop, passage: Passage, random: Random) -> list[Pair]:
    words = [match.span() for match in WORD.finditer(passage.text)]
    if len(words) < 2 * MIN_WORDS:
        return []

    def span() -> str:
        count = max(MIN_WORDS, round(len(words) * random.uniform(*SHARE)))
        first = random.randrange(len(words) - count + 1)
        return passage.text[words[first][0] : words[first + count - 1][1]]

    return [Pair(span(), span()) for _ in range(crop.per_passage)]
