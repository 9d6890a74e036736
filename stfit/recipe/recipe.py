"""A recipe: the sections of every room, composed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stfit.data.batching.sampling import Sampler
from stfit.data.source import TrainingData
from stfit.encoder.config import Model
from stfit.evaluation.gate import Gate
from stfit.evaluation.registry import Evaluator
from stfit.losses.base import TeacherLoss
from stfit.losses.registry import Loss
from stfit.publish.destination import Push
from stfit.spec import Spec
from stfit.tracking.trackers import Tracker
from stfit.training.hyperparameters import Train


def _require_folder_name(name: str) -> str:
    """A name that is safe as one folder of `runs/` and in a metric."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("a name starts with a letter or digit and holds only letters, digits, `.`, `_` and `-`")
    return name


ALTERNATIVES = {"objectives": ("data", "loss")}
"""A key that may be said instead of others, which then are not missing."""


class Objective(Spec):
    """Rows to train on, and what their batches minimise."""

    data: TrainingData
    """Its rows."""
    loss: Loss
    """What its batches minimise."""
    weight: float | None = Field(None, gt=0)
    """Its share of the batches, beside the other objectives' weights: equal weights take turns. An epoch has as many
    batches as all objectives have rows for; rows that run out before its end start over, in another order. Default, for
    all together: shares in proportion to their batches, so that an epoch trains on every row once."""
    sampler: Sampler | Literal["auto"] | None = None
    """How its rows form batches; default: as `train.sampler` says."""

    @property
    def teacher(self) -> Model | None:
        """The other model that its loss learns from, if it does."""
        loss = self.loss
        if not isinstance(loss, TeacherLoss) or loss.teacher is None:
            return None
        return Model(base=loss.teacher, revision=loss.revision)

    @property
    def views(self) -> tuple[str, ...]:
        """The columns that each text of the format `text` stands in; none where it keeps its own."""
        return self.loss.views if self.data.format == "text" else ()


class Recipe(Spec):
    """One training, from data to a measured model."""

    version: Literal[1] = 1
    """Version of the recipe language."""
    name: Annotated[str, AfterValidator(_require_folder_name)]
    """Name of the run folder under runs/; default: the recipe file's own name."""
    seed: int = Field(42, ge=0)
    """Everything random follows from it: order of the data, dropout, new weights."""
    model: Model
    """The encoder that is trained."""
    data: TrainingData | None
    """What it is trained on."""
    loss: Loss | None
    """What training minimises."""
    objectives: Annotated[list[Objective], Field(min_length=1)] | None = None
    """Several of both, in place of `data` and `loss`: every batch is of one of them."""
    train: Train = Train()
    """Batches, steps, optimizer and schedule."""
    eval: list[Evaluator] = []
    """Measured before the first step, during the run, and at its end."""
    gate: list[Gate] = []
    """What a model has to reach before it may be published; `stfit eval` exits with 7 where it does not."""
    track: list[Tracker] = []
    """Trackers that are told the hyper-parameters, the steps and the metrics; they change nothing of the training."""
    push: Push | None = None
    """Where `stfit push` publishes the model."""

    @property
    def objectives_by_path(self) -> dict[str, Objective]:
        """Every objective, with its sampler chosen, by the start of its keys: nothing for `data` and `loss`."""
        written = {f"objectives.{i}.": objective for i, objective in enumerate(self.objectives or [])}
        if self.data is not None and self.loss is not None:
            written = {"": Objective(data=self.data, loss=self.loss)}
        return {key: self._with_sampler(objective) for key, objective in written.items()}

    def _with_sampler(self, objective: Objective) -> Objective:
        """The objective, its rows put into batches as it says, else as the recipe says, else as its loss needs."""
        sampler = objective.sampler or self.train.sampler
        return objective.model_copy(update={"sampler": objective.loss.sampler if sampler == "auto" else sampler})

    @property
    def is_streamed(self) -> bool:
        """Whether it has data whose rows are not known before they are read."""
        return any(each.data.streaming for each in self.objectives_by_path.values())

    @property
    def holdout_source(self) -> TrainingData | None:
        """The data that keeps rows for evaluators that say `from: holdout`."""
        return next((each.data for each in self.objectives_by_path.values() if each.data.holdout is not None), None)

    @model_validator(mode="before")
    @classmethod
    def objectives_replace_data_and_loss(cls, written: Any) -> Any:
        """Where there are objectives, `data` and `loss` are not missing."""
        for key, replaced in ALTERNATIVES.items():
            if isinstance(written, dict) and written.get(key) is not None:
                written = dict.fromkeys(replaced) | written
        return written

    @model_validator(mode="after")
    def trained_once(self) -> Self:
        """What is trained is said in one of two ways."""
        both = self.data is not None and self.loss is not None
        either = self.data is not None or self.loss is not None
        if self.objectives is None and not both:
            missing = "data" if self.data is None else "loss"
            raise ValueError(f"`{missing}` says nothing: write `data` and `loss`, or several `objectives`")
        if self.objectives is not None and either:
            raise ValueError("`objectives` take the place of `data` and `loss`: move both into the list")
        return self

    @model_validator(mode="after")
    def all_weights_or_none(self) -> Self:
        """A share is said beside the others' shares."""
        weights = [objective.weight for objective in self.objectives or []]
        if None in weights and any(weight is not None for weight in weights):
            raise ValueError("give every objective a `weight`, or none of them")
        return self

    @property
    def matryoshka_dims(self) -> list[int]:
        """Prefixes of the embedding that losses train, the longest first: each is measured by itself."""
        trained = {dim for each in self.objectives_by_path.values() for dim in each.loss.matryoshka_dims or []}
        return sorted((dim for dim in trained if dim <= (self.model.truncate_dim or dim)), reverse=True)

    @model_validator(mode="after")
    def evaluators_are_told_apart(self) -> Self:
        """Metrics are named after their evaluator."""
        names = [evaluator.label for evaluator in self.eval]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"several evaluators are called {', '.join(twice)}: give each a `name`")
        return self

    @model_validator(mode="after")
    def data_is_one_dataset(self) -> Self:
        """`from: data` has been replaced by the keys of `data`, where there is one."""
        asking = [number for number, evaluator in enumerate(self.eval) if evaluator.from_ == "data"]
        if asking:
            raise ValueError(f"`eval.{asking[0]}` says `from: data`, but there are `objectives`: name its `dataset`")
        return self

    @model_validator(mode="after")
    def holdout_exists(self) -> Self:
        """`from: holdout` evaluates the rows that `data.holdout` keeps out of training."""
        asking = [number for number, evaluator in enumerate(self.eval) if evaluator.from_ == "holdout"]
        if self.holdout_source is None and asking:
            raise ValueError(f"`eval.{asking[0]}` says `from: holdout`, but no `holdout` keeps rows out of training")
        if sum(each.data.holdout is not None for each in self.objectives or []) > 1:
            raise ValueError("`from: holdout` means the rows of one `holdout`: let the other objectives have none")
        return self
