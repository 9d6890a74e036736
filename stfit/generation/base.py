"""What every method of generating pairs shares: passages in, for each a list of pairs out."""

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


def of_each(pairs_of: Callable[[Passage, Random], list[Pair]], seed: int) -> MakePairs:
    """Passages one by one, each with random numbers that depend on its text and the seed alone."""
    return lambda passages: (pairs_of(passage, Random(f"{seed} {passage.text}")) for passage in passages)
