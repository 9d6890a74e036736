"""What every method of generating pairs shares: passages in, for each a list of pairs out."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import ClassVar, NamedTuple, Protocol

from stfit.generation.answers import Answers
from stfit.spec import Spec


class Passage(NamedTuple):
    id: str
    document: str
    title: str
    text: str


class Pair(NamedTuple):
    anchor: str
    positive: str


class MakePairs(Protocol):
    def __call__(self, passages: Sequence[Passage]) -> Iterator[list[Pair]]:
        """The pairs of each passage, which depend on no other passage."""


class GeneratorBase(Spec):
    writes_questions: ClassVar[bool] = False
    """Whether a model writes the anchors: then some of them copy their passage, and it takes long."""

    @property
    def made_by(self) -> str:
        """What rows say of their origin."""
        return self.tag()

    def describe_cost(self, passages: Iterable[Passage]) -> str:
        """What it takes to ask a model for all of them, told before it begins; empty if it costs nothing."""
        return ""

    def open(self, seed: int, answers: Answers) -> MakePairs:
        """Raises ModelError. `answers`: what a model has written already."""
        raise NotImplementedError


def from_answers(
    passages: Sequence[Passage],
    key: Callable[[Passage], str],
    ask: Callable[[dict[str, Passage]], None],
    answers: Answers,
) -> Iterator[list[Pair]]:
    """The questions of a model with their passages. `ask` puts those that are missing, by key, into the answers."""
    keys = [key(passage) for passage in passages]
    new = {own: passage for own, passage in zip(keys, passages, strict=True) if answers.get(own) is None}
    answers.counts["kept"] += len(passages) - len(new)
    ask(new)
    for own, passage in zip(keys, passages, strict=True):
        yield [Pair(question, passage.text) for question in answers.get(own) or []]


def fill_prompt(prompt: str, **values: str) -> str:
    """All at once: what is filled in may hold such a name, too."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), prompt)


def of_each(pairs_of: Callable[[Passage, Random], list[Pair]], seed: int) -> MakePairs:
    """Passages one by one, each with random numbers that depend on its text and the seed alone."""
    return lambda passages: (pairs_of(passage, Random(f"{seed} {passage.text}")) for passage in passages)
