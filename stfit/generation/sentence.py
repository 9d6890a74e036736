import re
from functools import partial
from random import Random
from typing import Literal

from pydantic import Field

from stfit.data.mapping.plain_text import WORD
from stfit.generation.answers import Answers
from stfit.generation.base import GeneratorBase, MakePairs, Pair, Passage, of_each

SENTENCE = re.compile("\\S.*?(?:[.!?\u2026]+[\"'\u201d\u2019)\\]]*(?=\\s|$)|[\u3002\uff01\uff1f]|(?=\n)|$)")
"""Up to a full stop before a space, or the end of a line. An abbreviation ends one too, which does little harm."""
MIN_WORDS = 3
"""Of a sentence that is asked with."""


class Sentence(GeneratorBase):
    """A sentence finds the passage it is from, without it (inverse cloze task, https://arxiv.org/abs/1906.00300)."""

    type: Literal["sentence"] = "sentence"
    per_passage: int = Field(1, gt=0)
    """Pairs of each passage, at most as many as it has sentences."""
    keep: float = Field(0.1, ge=0, le=1)
    """Share of the pairs whose passage keeps the sentence, so that equal words count as well."""

    def open(self, seed: int, answers: Answers) -> MakePairs:
        return of_each(partial(_pairs_of, self), seed)


def _pairs_of(settings: Sentence, passage: Passage, random: Random) -> list[Pair]:
    text = passage.text
    spans = [match.span() for match in SENTENCE.finditer(text)]
    if len(spans) < 2:
        return []
    asked = [span for span in spans if len(WORD.findall(text, *span)) >= MIN_WORDS]
    pairs = []
    for start, end in random.sample(asked, min(settings.per_passage, len(asked))):
        rest = " ".join(part for part in (text[:start].strip(), text[end:].strip()) if part)
        pairs.append(Pair(text[start:end].strip(), text if random.random() < settings.keep else rest))
    return pairs
