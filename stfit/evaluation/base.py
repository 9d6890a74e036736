"""The base of every evaluator: its rows, the name of its metrics, and when it runs."""

import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.data.checks.leakage import Column, columns_of
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.load_examples import load_examples
from stfit.data.source import ROLES, OptionalSplit, Source, Unnamed, label_selector
from stfit.errors import Problem, RecipeError
from stfit.evaluation.slices import slice_names
from stfit.paths import Location, without_data_suffix
from stfit.similarity import SIMILARITIES, pairwise_similarity
from stfit.spec import Spec, TextLike

When = Literal["start", "during", "end"]

Embed = Callable[[str, list[str]], np.ndarray]
"""Role and texts -> embeddings [texts, dim], with the prompt of the role."""

Precision = Literal["float32", "int8", "binary", "binary+rescore"]

TrainAndHoldout = tuple[Examples, Examples | None]

Name = Annotated[
    str,
    TextLike(
        r"^[^/@#\[\]\s]+$", "a name without spaces, `/`, `@`, `#` and brackets, which separate the parts of a metric"
    ),
]


class Named(Spec):
    """The name of an evaluator's metrics, and when they are measured."""

    name: Name | None = None
    """First part of the metric names. Default: the last part of the dataset's name, or `holdout`."""
    when: list[When] = ["start", "during", "end"]
    """When to evaluate: at the start of training, during it, and at its end."""

    main_metric: ClassVar[str]
    can_slice: ClassVar[bool] = True
    """Whether its metrics are means over rows of its own, which `by` can divide."""
    allowed: ClassVar[tuple[str, ...]] = ()
    """Codes of problems with rows that are none for this evaluator."""
    needs_head: ClassVar[bool] = False
    """Whether `measure` takes the classifier of the softmax loss as `head`."""
    can_rescore: ClassVar[bool] = False
    """Whether it searches, so that what it has found can be ordered again."""

    @property
    def folders_of_parts(self) -> list[str]:
        """Folders that `stfit encode --part` wrote, in which embeddings of texts may be found."""
        return []

    @property
    def main_metrics(self) -> list[str]:
        """The metrics to print and to show first."""
        return [self.main_metric]

    @property
    def stored_precisions(self) -> list[Precision]:
        """Those that are measured beside float32."""
        return []

    def slices_of(self, rows: Any) -> list[str] | None:
        """The slice of each row that is resampled; None if there are no slices."""
        return None

    def texts_of_rows(self, rows: Any) -> dict[str, list[Any]]:
        """Role -> the text of each row that is resampled; empty if a row is no text or pair of texts."""
        return {}

    def details(self, rows: Any, embed: Embed, similarity: str) -> list[dict[str, Any]] | None:
        """What is told of each row that is resampled, beside its texts and metrics; None for nothing."""
        return None


class Benchmark(Named):
    """An evaluator whose rows are those of a public benchmark, so that a recipe names no columns."""

    format: ClassVar[str] = ""
    symmetric: ClassVar[bool] = False
    per_similarity: ClassVar[bool] = False
    dataset: ClassVar[None] = None
    from_: ClassVar[None] = None
    config: ClassVar[None] = None
    by: ClassVar[str | None] = None
    revision: ClassVar[None] = None
    split: ClassVar[str] = "test"
    columns: ClassVar[dict[str, str]] = {}

    def columns_of(self, rows: Any) -> dict[str, Column]:
        return {}

    def examples_of(self, rows: Any) -> Examples | None:
        """None: the rows are unknown."""
        return None

    def problems_of(self, rows: Any) -> list[Problem]:
        return []


class EvaluatorBase(Named, Source):
    """An evaluator on rows of its own: a source like the training data's, or the holdout of the training data."""

    format: ClassVar[str]
    from_holdout_of: ClassVar[tuple[str, ...]] = ()
    """Other formats of a holdout that have the required roles."""
    symmetric: ClassVar[bool] = False
    """Whether roles have no prompt unless the recipe sets one."""
    per_similarity: ClassVar[bool] = True
    """Whether each metric is computed for every similarity; otherwise for the model's own only."""

    dataset: Location | None = None  # type: ignore[assignment]  # the one key that `from` replaces
    """Hub id, file or glob, folder of splits, or a dataset saved to disk. Omit it with `from`."""
    from_: Literal["holdout", "data"] | None = Field(None, alias="from")
    """`holdout`: evaluate on the rows that `data.holdout` holds out of training. `data`: evaluate on another split of
    the training dataset, read with the settings of `data` that the evaluator does not override."""
    split: OptionalSplit = Field(default_factory=lambda: Unnamed("test"), json_schema_extra={"default": None})
    """Split, with an optional slice. Default: `test`; one file, a glob, or a dataset saved to disk without splits needs
    no split."""

    by: str | None = None
    """Column whose values are slices of the rows, such as languages; of retrieval, a column of the queries. Every main
    metric is measured of each slice too, as `NAME[VALUE]/METRIC`, and the lowest as `NAME[worst]/METRIC`."""

    precisions: list[Precision] = Field(["float32"], min_length=1)
    """In which the embeddings are stored, as an index does: beside float32, which is always measured, int8 (by the
    ranges of the corpus), binary (signs alone) or, for retrieval, binary+rescore (signs find the first 4 k documents,
    which the float query and the documents' int8 then order). Main metrics `NAME#int8/METRIC`."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = self.origins_given
        if sum(given.values()) != 1:
            raise ValueError(f"set exactly one of {', '.join(given)}")
        return self

    @property
    def origins_given(self) -> dict[str, bool]:
        """Possible sources of rows, as text -> whether the recipe sets it."""
        return {"`dataset`": self.dataset is not None, "`from: holdout`": self.from_ is not None}

    @property
    def label(self) -> str:
        if self.name is not None:
            return self.name
        if self.dataset is None:
            return "holdout"
        return re.sub(r"[@#\[\]]", "-", without_data_suffix(PurePath(self.dataset).name))

    @property
    def origin(self) -> str | None:
        return self.dataset

    @property
    def label_column(self) -> str | None:
        return label_selector(self.format, self.columns)

    @property
    def prompt_roles(self) -> tuple[str, ...]:
        return ROLES[self.format]

    def load(self, seed: int, training: TrainAndHoldout | None) -> Any:
        """The rows for `measure`; `training` holds those of `from: holdout`."""
        if self.from_ is not None:
            return self.held_out(training)
        return load_examples(self, self.format, seed, keep=self.kept_columns)[0]

    @property
    def stored_precisions(self) -> list[Precision]:
        return [precision for precision in dict.fromkeys(self.precisions) if precision != "float32"]

    @property
    def kept_columns(self) -> list[str]:
        return [] if self.by is None else [self.by]

    def slices_of(self, rows: Any) -> list[str] | None:
        """The slice of each row that is resampled; None without `by`."""
        return None if self.by is None else slice_names(self._sliced_examples(rows).kept[self.by])

    def _sliced_examples(self, rows: Any) -> Examples:
        return rows

    def texts_of_rows(self, rows: Any) -> dict[str, list[Any]]:
        examples = self._sliced_examples(rows)
        return {"row": examples.row.tolist(), **examples.texts}

    def held_out(self, training: TrainAndHoldout | None) -> Examples:
        """The holdout. Raises RecipeError if it has another format than the evaluator needs."""
        held_out = training[1] if training else None
        assert held_out is not None  # the recipe refuses `from: holdout` without data.holdout
        if held_out.format not in (self.format, *self.from_holdout_of):
            message = f"evaluator `{self.label}` needs {self.format} rows, but the holdout has {held_out.format} rows"
            raise RecipeError(message)
        return held_out

    def examples_of(self, rows: Any) -> Examples | None:
        """The rows that training must not contain; None if they are unknown."""
        return rows

    def problems_of(self, rows: Any) -> list[Problem]:
        """Warnings about the rows."""
        return []

    def columns_of(self, rows: Any) -> dict[str, Column]:
        """The single texts that training must not contain, by role."""
        examples = self.examples_of(rows)
        return {} if examples is None else columns_of(examples)


def pair_details(rows: Examples, embed: Embed, similarity: str) -> list[dict[str, Any]]:
    """The similarity and the label of each pair."""
    first, second = (embed(role, rows.column(role)) for role in ("sentence1", "sentence2"))
    scores = score_pairs(first, second)[similarity].tolist()
    labels = rows.label.tolist() if rows.label is not None else [None] * len(scores)
    return [{"label": label, "similarity": score} for label, score in zip(labels, scores, strict=True)]


def score_pairs(first_rd: np.ndarray, second_rd: np.ndarray) -> dict[str, np.ndarray]:
    """Every similarity of row i of one array to row i of the other, [r]."""
    import torch

    first, second = torch.from_numpy(first_rd), torch.from_numpy(second_rd)
    return {name: pairwise_similarity(name, first, second).numpy() for name in SIMILARITIES}
