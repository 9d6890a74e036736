"""The recipe: all sections together, and the rules between them."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stfit.data.batching.sampling import Sampler
from stfit.data.checks.compatibility import LabelNeeds
from stfit.data.source import ROLES, TrainingData
from stfit.encoder.config import Model
from stfit.evaluation.gate import Gate
from stfit.evaluation.registry import Evaluator
from stfit.losses.base import CrossEncoderTeacher, LossBase, TeacherLoss, best_sampler, views_of
from stfit.losses.registry import Losses
from stfit.publish.destination import Push
from stfit.spec import Spec
from stfit.tracking.trackers import Tracker
from stfit.training.hyperparameters import Train

LONGEST_NAME = 200
"""File systems allow 255 bytes; the files beside a run folder add a prefix and a suffix."""
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
TAKEN_SUFFIXES = (".tmp", ".old", ".damaged", ".lock")


def _require_folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("a name must start with a letter or digit and contain only letters, digits, `.`, `_` and `-`")
    if len(name) > LONGEST_NAME:
        raise ValueError(
            f"{len(name)} characters are too many for the name of a run folder, and of the files beside it: use at "
            f"most {LONGEST_NAME}"
        )
    if RESERVED.fullmatch(name.partition(".")[0]):
        raise ValueError(f"{name} is the name of a device on Windows, where nobody could copy the run: choose another")
    if name.endswith("."):
        raise ValueError("a name must not end in `.`, which Windows drops: choose another name")
    if name.endswith(TAKEN_SUFFIXES):
        raise ValueError(f"stfit's own unfinished files end in {', '.join(TAKEN_SUFFIXES)}: choose another name")
    return name


def teacher_of(loss: LossBase) -> Model | CrossEncoderTeacher | None:
    """The model that a loss learns from; None if it needs none."""
    if not isinstance(loss, TeacherLoss) or loss.teacher is None:
        return None
    teacher = loss.teacher
    return Model(base=teacher, revision=loss.revision) if isinstance(teacher, str) else teacher


ALTERNATIVES = {"objectives": ("data", "loss")}


class Objective(Spec):
    """A dataset and the loss to minimize on it."""

    data: TrainingData
    """The training data."""
    loss: Losses
    """The loss to minimize, or a list: the sum of several losses of the same batch, each with its `weight`."""
    weight: float | None = Field(None, gt=0)
    """Fraction of the batches, relative to the weights of the other objectives; with equal weights, objectives
    alternate. An epoch has as many batches as all objectives together; an objective that runs out of rows starts over
    in a new order. Default: proportional to the number of batches, so that an epoch uses every row once."""
    sampler: Sampler | Literal["auto"] | None = None
    """How batches are formed. Defaults to `train.sampler`."""

    @property
    def losses(self) -> list[LossBase]:
        return list(self.losses_by_key.values())

    @property
    def losses_by_key(self) -> dict[str, LossBase]:
        """`loss`, or `loss.0`, `loss.1`, ... -> loss."""
        return (
            {f"loss.{i}": loss for i, loss in enumerate(self.loss)}
            if isinstance(self.loss, list)
            else {"loss": self.loss}
        )

    @property
    def loss_names(self) -> str:
        return " + ".join(loss.tag() for loss in self.losses)

    @property
    def min_batch_size(self) -> int:
        return max(loss.min_batch_size for loss in self.losses)

    @property
    def best_sampler(self) -> Sampler:
        return best_sampler(self.losses)

    @property
    def teachers(self) -> list[Model | CrossEncoderTeacher | None]:
        """The teacher of each loss."""
        return [teacher_of(loss) for loss in self.losses]

    @property
    def views(self) -> tuple[str, ...]:
        """The columns into which each text of format `text` is copied; empty for other formats."""
        return views_of(self.losses, self.data.format)

    @property
    def roles(self) -> tuple[str, ...]:
        return self.views or ROLES[self.data.format]

    def format_of(self, loss: LossBase) -> str | None:
        """The format of the columns that a loss selects; None if they form none."""
        return loss.format_of(self.data.format, self.roles)

    @property
    def needs(self) -> list[LabelNeeds]:
        """What each loss learns from."""
        return [
            LabelNeeds(loss.tag(), loss.label_kinds(self.data.format, self.roles), teacher_of(loss) is not None)
            for loss in self.losses
        ]


class Recipe(Spec):
    """One training, from data to an evaluated model."""

    version: Literal[1] = 1
    """Version of the recipe language."""
    name: Annotated[str, AfterValidator(_require_folder_name)]
    """Name of the run folder in runs/: at most 200 letters, digits, `.`, `_` and `-`. Defaults to the name of the
    recipe file, without its suffix."""
    seed: int = Field(42, ge=0)
    """Random seed for the order of the data, dropout and new weights."""
    model: Model
    """The encoder to train."""
    data: TrainingData | None
    """The training data."""
    loss: Losses | None
    """The loss to minimize, or a list: the sum of several losses of the same batch, each with its `weight`."""
    objectives: Annotated[list[Objective], Field(min_length=1)] | None = None
    """Several pairs of data and loss, instead of `data` and `loss`. Each batch comes from one of them."""
    train: Train = Train()
    """Batches, steps, optimizer and schedule."""
    eval: list[Evaluator] = []
    """Evaluators, run before the first step, during training and at the end."""
    gate: list[Gate] = []
    """Conditions that a model must meet to be published. If it does not, `stfit eval` and `stfit push` exit with 7."""
    track: list[Tracker] = []
    """Experiment trackers that receive hyperparameters, steps and metrics. They do not affect training."""
    push: Push | None = None
    """Where `stfit push` publishes the model."""

    @property
    def objectives_by_path(self) -> dict[str, Objective]:
        """Start of its keys (empty for `data` and `loss`) -> objective, with its sampler resolved."""
        objectives = {f"objectives.{i}.": objective for i, objective in enumerate(self.objectives or [])}
        if self.data is not None and self.loss is not None:
            objectives = {"": Objective(data=self.data, loss=self.loss)}
        for key, objective in objectives.items():
            sampler = objective.sampler or self.train.sampler
            update = {"sampler": objective.best_sampler if sampler == "auto" else sampler}
            objectives[key] = objective.model_copy(update=update)
        return objectives

    @property
    def losses_by_path(self) -> dict[str, LossBase]:
        """Key, such as `loss` or `objectives.0.loss.1` -> loss."""
        return {
            f"{path}{key}": loss
            for path, objective in self.objectives_by_path.items()
            for key, loss in objective.losses_by_key.items()
        }

    @property
    def is_streamed(self) -> bool:
        return any(objective.data.streaming for objective in self.objectives_by_path.values())

    @property
    def holdout_source(self) -> TrainingData | None:
        return next((data for objective in self.objectives_by_path.values() if (data := objective.data).holdout), None)

    @property
    def columns_of_holdout(self) -> list[str]:
        """Columns that evaluators on the holdout need beside its roles."""
        return list(dict.fromkeys(each.by for each in self.eval if each.from_ == "holdout" and each.by))

    @model_validator(mode="before")
    @classmethod
    def objectives_replace_data_and_loss(cls, written: Any) -> Any:
        """Fill in null for the keys that another key replaces, so that they are not reported as missing."""
        for key, replaced in ALTERNATIVES.items():
            if isinstance(written, dict) and written.get(key) is not None:
                written = dict.fromkeys(replaced) | written
        return written

    @model_validator(mode="after")
    def require_one_training_definition(self) -> Self:
        missing = [key for key in ("data", "loss") if getattr(self, key) is None]
        if self.objectives is None and missing:
            raise ValueError(f"`{missing[0]}` is missing: write `data` and `loss`, or several `objectives`")
        if self.objectives is not None and len(missing) < 2:
            raise ValueError("`objectives` replaces `data` and `loss`: move both into the list")
        return self

    @model_validator(mode="after")
    def require_all_weights_or_none(self) -> Self:
        if len({objective.weight is None for objective in self.objectives or []}) > 1:
            raise ValueError("set `weight` for all objectives or for none")
        return self

    @property
    def matryoshka_dims(self) -> list[int]:
        """Prefix lengths that the losses train, longest first; each is evaluated separately."""
        dims = {dim for loss in self.losses_by_path.values() for dim in loss.matryoshka_dims or []}
        return sorted((dim for dim in dims if dim <= (self.model.truncate_dim or dim)), reverse=True)

    @model_validator(mode="after")
    def require_unique_evaluator_names(self) -> Self:
        """Metrics are named after their evaluator."""
        names = [evaluator.label for evaluator in self.eval]
        for number, name in enumerate(names):
            if name in names[:number]:
                first = names.index(name)
                raise ValueError(f"`eval.{number}.name`: `eval.{first}` is called {name}, too; give each its own name")
        return self

    @model_validator(mode="after")
    def require_source_of_from(self) -> Self:
        """The loader has replaced `from: data` by the keys of `data`; `from: holdout` needs a `holdout`."""
        for number, evaluator in enumerate(self.eval):
            if evaluator.from_ == "data":
                raise ValueError(f"`eval.{number}` has `from: data`, but the recipe has `objectives`: set `dataset`")
            if evaluator.from_ == "holdout" and self.holdout_source is None:
                raise ValueError(f"`eval.{number}` has `from: holdout`, but `data.holdout` is missing")
        if sum(objective.data.holdout is not None for objective in self.objectives or []) > 1:
            raise ValueError("several objectives have a `holdout`, but only one is allowed: remove the others")
        return self
