from random import Random
from typing import Literal

from stfit.generation.answers import Answers
from stfit.generation.base import GeneratorBase, MakePairs, Pair, Passage, of_each

AFTER_TITLE = " .:-\u2013\u2014\n\t"


class Title(GeneratorBase):
    """The title of a passage finds its text."""

    type: Literal["title"] = "title"

    def open(self, seed: int, answers: Answers) -> MakePairs:
        return of_each(_pairs_of, seed)


def _pairs_of(passage: Passage, random: Random) -> list[Pair]:
    """A text that begins with its title teaches to find equal words, so it is taken without."""
    title, text = passage.title.strip(), passage.text
    start = title.rstrip(AFTER_TITLE)
    if start and text[: len(start)].lower() == start.lower():
        text = text[len(start) :].lstrip(AFTER_TITLE)
    return [Pair(title, text)] if title and text else []
