"""A recipe: the sections of every room, composed."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stfit.data.sampling import Sampler
from stfit.data.source import TrainingData
from stfit.encoder.settings import Model
from stfit.evaluation.evaluator import Evaluator
from stfit.losses.loss import Loss
from stfit.spec import Spec
from stfit.training.settings import Train


def folder_name(name: str) -> str:
    """A name that is safe as one folder of `runs/` and in a metric."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("a name starts with a letter or digit and holds only letters, digits, `.`, `_` and `-`")
    return name


class Recipe(Spec):
    """One training, from data to a measured model."""

    version: Literal[1] = 1
    """Version of the recipe language."""
    name: Annotated[str, AfterValidator(folder_name)]
    """Name of the run folder under runs/; default: the recipe file's own name."""
    seed: int = Field(42, ge=0)
    """Everything random follows from it: order of the data, dropout, new weights."""
    model: Model
    """The encoder that is trained."""
    data: TrainingData
    """What it is trained on."""
    loss: Loss
    """What training minimises."""
    train: Train = Train()
    """Batches, steps, optimizer and schedule."""
    eval: list[Evaluator] = []
    """Measured before the first step, during the run, and at its end."""

    @property
    def sampler(self) -> Sampler:
        """How rows form batches: what `train.sampler` says, or what the loss needs."""
        return self.loss.sampler if self.train.sampler == "auto" else self.train.sampler

    @model_validator(mode="after")
    def evaluators_are_told_apart(self) -> Self:
        """Metrics are named after their evaluator."""
        names = [evaluator.label for evaluator in self.eval]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"several evaluators are called {', '.join(twice)}: give each a `name`")
        return self

    @model_validator(mode="after")
    def holdout_exists(self) -> Self:
        """`from: holdout` evaluates the rows that `data.holdout` keeps out of training."""
        if self.data.holdout is None and any(evaluator.from_ == "holdout" for evaluator in self.eval):
            raise ValueError("an evaluator says `from: holdout`, but `data.holdout` keeps no rows out of training")
        return self
