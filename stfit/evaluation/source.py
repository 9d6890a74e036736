"""What every evaluator has: rows to measure on, a name for its metrics, and when it runs."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal, Self

from pydantic import Field, model_validator

from stfit.data.source import Source
from stfit.location import DATA_SUFFIXES, Location

When = Literal["start", "during", "end"]


class EvaluationSource(Source):
    """Rows that an evaluator measures on: a source like the training data's, or the training data's own holdout."""

    dataset: Location | None = None  # type: ignore[assignment]  # the one key that `from: holdout` replaces
    """Hub id, file or glob, folder of splits, or a dataset saved to disk; left out with `from: holdout`."""
    from_: Literal["holdout"] | None = Field(None, alias="from")
    """`holdout`: measure on the rows that `data.holdout` keeps out of training."""
    split: str = "test"
    """Split, with an optional slice."""
    name: str | None = Field(None, pattern=r"^[^/@\s]+$")
    """First part of the metrics' names; default: the last part of the dataset's name, or `holdout`."""
    when: list[When] = ["start", "during", "end"]
    """At the start of a training, during it, at its end."""

    @model_validator(mode="after")
    def one_origin(self) -> Self:
        """Rows come from a dataset or from the holdout."""
        if (self.dataset is None) == (self.from_ is None):
            raise ValueError("give `dataset`, or `from: holdout`, and not both")
        return self

    @property
    def label(self) -> str:
        """First part of the metrics' names."""
        if self.name is not None:
            return self.name
        if self.dataset is None:
            return "holdout"
        last = PurePath(self.dataset).name
        return next((last.removesuffix(suffix) for suffix in DATA_SUFFIXES if last.endswith(suffix)), last)
