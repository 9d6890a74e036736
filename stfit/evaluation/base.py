"""What every evaluator has: rows to measure on, a name for its metrics, and when it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.data.mapping.examples import Examples, load_examples
from stfit.data.source import ROLES, Source
from stfit.errors import RecipeError
from stfit.lazy import lazy
from stfit.paths import DATA_SUFFIXES, Location
from stfit.similarity import SIMILARITIES, pairwise_similarity
from stfit.spec import Spec

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

When = Literal["start", "during", "end"]

Embed = Callable[[str, list[str]], np.ndarray]
"""Texts of a role -> [texts, dim], each with the prompt of the role."""


TrainAndHoldout = tuple[Examples, Examples | None]
"""The rows that the recipe trains on, and those held out from them."""


class Named(Spec):
    """What an evaluator's metrics are called, and when they are measured."""

    name: str | None = Field(None, pattern=r"^[^/@\s]+$")
    """First part of the metrics' names; default: the last part of the dataset's name, or `holdout`."""
    when: list[When] = ["start", "during", "end"]
    """At the start of a training, during it, at its end."""


class EvaluatorBase(Named, Source):
    """Rows that an evaluator measures on: a source like the training data's, or the training data's own holdout."""

    format: ClassVar[str]
    """Format of the rows."""
    from_holdout_of: ClassVar[tuple[str, ...]] = ()
    """Other formats of training data whose holdout has the roles that are needed."""
    symmetric: ClassVar[bool] = False
    """Whether no role takes a prompt, unless the recipe says so."""
    main_metric: ClassVar[str]
    """The metric that a table shows, without its similarity."""
    per_similarity: ClassVar[bool] = True
    """Whether there is a metric for each similarity; else the model's own one is used."""

    dataset: Location | None = None  # type: ignore[assignment]  # the one key that `from` replaces
    """Hub id, file or glob, folder of splits, or a dataset saved to disk; left out with `from`."""
    from_: Literal["holdout", "data"] | None = Field(None, alias="from")
    """`holdout`: measure on the rows that `data.holdout` keeps out of training. `data`: on another split of the
    training data's dataset, read as `data` says, where the evaluator says nothing else."""
    split: str = "test"
    """Split, with an optional slice."""

    @model_validator(mode="after")
    def one_origin(self) -> Self:
        """Rows come from one place."""
        given = self.origins_given
        if sum(given.values()) != 1:
            *all_but_last, last = given
            raise ValueError(f"give {', '.join(all_but_last)}, or {last}, and not both")
        return self

    @property
    def origins_given(self) -> dict[str, bool]:
        """Where rows may come from, in words, and whether the recipe says so."""
        return {"`dataset`": self.dataset is not None, "`from: holdout`": self.from_ is not None}

    @property
    def label(self) -> str:
        """First part of the metrics' names."""
        if self.name is not None:
            return self.name
        if self.dataset is None:
            return "holdout"
        last = PurePath(self.dataset).name
        return next((last.removesuffix(suffix) for suffix in DATA_SUFFIXES if last.endswith(suffix)), last)

    @property
    def origin(self) -> str | None:
        """Where the rows come from; None for the training data's own dataset."""
        return self.dataset

    @property
    def prompt_roles(self) -> tuple[str, ...]:
        """The roles that `prompts` may give a prompt."""
        return ROLES[self.format]

    def load(self, seed: int, own: TrainAndHoldout | None) -> Any:
        """The rows to measure on, as `measure` takes them; `own` are those of `from: holdout`."""
        return load_examples(self, self.format, seed)[0] if self.from_ is None else self.held_out(own)

    def held_out(self, own: TrainAndHoldout | None) -> Examples:
        """The holdout, where it has the format that is needed."""
        held_out = own[1] if own else None
        assert held_out is not None  # the recipe refuses `from: holdout` without data.holdout
        if held_out.format not in (self.format, *self.from_holdout_of):
            raise RecipeError(
                f"evaluator `{self.label}` measures {self.format} rows, but the holdout is {held_out.format}"
            )
        return held_out

    def examples_of(self, rows: Any) -> Examples | None:
        """What of the rows training must not have seen; None where it can't be known."""
        examples: Examples = rows
        return examples


def score_pairs(first_rd: np.ndarray, second_rd: np.ndarray) -> dict[str, np.ndarray]:
    """Every similarity of row i of one array to row i of the other, [r]."""
    first, second = torch.from_numpy(first_rd), torch.from_numpy(second_rd)
    return {name: pairwise_similarity(name, first, second).numpy() for name in SIMILARITIES}
