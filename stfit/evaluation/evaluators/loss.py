"""The loss on rows that are not trained on."""

from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.data.batching.batches import number_texts
from stfit.data.batching.sampling import sample_batches
from stfit.data.checks.compatibility import LabelNeeds, check_kind, format_problem
from stfit.data.mapping.examples import Examples
from stfit.data.source import ROLES, ROWS_SEED, Format
from stfit.errors import DataError, Problem, RecipeError
from stfit.evaluation.base import Embed, EvaluatorBase
from stfit.evaluation.statistic import Statistic, mean_of
from stfit.lazy import Tensor, torch
from stfit.losses.base import LossBase, TeacherLoss, best_sampler, views_of
from stfit.losses.registry import LOSSES, Losses

OF_SUMS = {"matryoshka_dims": None, "matryoshka_weights": None, "n_dims_per_step": None, "precisions": None}


class LossOnRows(EvaluatorBase):
    """The mean loss of batches that are formed as in training, with the sign changed: higher is better.

    The loss, the format, the batch size and the prompts are those of the recipe unless they are set. A loss that is
    trained for `matryoshka_dims` is measured at each of them, as every evaluator is, instead of as their sum.
    """

    type: Literal["loss"] = "loss"
    per_similarity = False
    can_slice = False
    allowed = ("one-label",)
    main_metric = "negative_loss"
    metrics: ClassVar[list[str]] = ["negative_loss"]

    format: Format  # type: ignore[misc]  # of other evaluators, what they measure determines it
    """Format of the rows. Default: that of `data`; beside `objectives`, it has to be set."""
    loss: Losses
    """Loss to measure, or a list. Default: that of the recipe."""
    batch_size: int = Field(32, gt=0)
    """Rows of a batch. Default: that of `train`."""

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        for loss in self.losses:
            if loss.is_built:
                raise ValueError(f"loss `{loss.tag()}` has weights of its own: measure it with `label_accuracy`")
            if isinstance(loss, TeacherLoss) and loss.teacher is not None:
                raise ValueError(f"loss `{loss.tag()}` learns from a teacher: measure a student with `mse`")
            format = loss.format_of(self.format, self.roles)
            if problem := format_problem(loss.tag(), str(format), {each.tag(): each.fits for each in LOSSES}):
                raise ValueError(problem)
        return self

    @property
    def losses(self) -> list[LossBase]:
        return [*self.loss] if isinstance(self.loss, list) else [self.loss]

    @property
    def views(self) -> tuple[str, ...]:
        return views_of(self.losses, self.format)

    @property
    def roles(self) -> tuple[str, ...]:
        return self.views or ROLES[self.format]

    def load(self, seed: int, training: Any) -> Examples:
        examples: Examples = super().load(seed, training)
        check_kind(self.needs, examples)
        self._batches(examples)
        return examples

    @property
    def needs(self) -> list[LabelNeeds]:
        return [LabelNeeds(loss.tag(), loss.label_kinds(self.format, self.roles)) for loss in self.losses]

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """`negative_loss`, a mean over batches. Raises DataError if the rows do not form a batch."""
        from stfit.losses.terms import LossTerms

        columns = {role: _embed_column(embed, role, texts) for role, texts in rows.texts.items()}
        if self.views:
            columns = dict.fromkeys(self.views, next(iter(columns.values())))
        losses = [loss.model_copy(update=OF_SUMS) for loss in self.losses]
        terms = LossTerms(losses, next(iter(columns.values())).shape[1])
        labels = [_label(rows, need) for need in self.needs]
        values = []
        for batch in self._batches(rows):
            index = torch.from_numpy(batch)
            of_batch = {name: vectors[index] for name, vectors in columns.items()}
            with torch.no_grad():
                values.append(terms(of_batch, [None if each is None else each[index] for each in labels]).sum().item())
        return {"negative_loss": mean_of(-np.array(values))}

    def _batches(self, rows: Examples) -> list[np.ndarray]:
        """Raises DataError if the rows form no batch."""
        sampler, least = best_sampler(self.losses), max(loss.min_batch_size for loss in self.losses)
        given = number_texts(rows), rows.label, self.batch_size, ROWS_SEED, rows.fingerprint, least
        try:
            batches = sample_batches(sampler, *given, epoch=0)
        except (DataError, RecipeError) as error:
            raise type(error)(Problem(f"evaluator `{self.label}`: {error}", "no-batch", key="batch_size")) from error
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        return whole or batches  # a smaller batch has fewer negatives, and is easier

    def texts_of_rows(self, rows: Any) -> dict[str, list[Any]]:
        """None: what is resampled are batches."""
        return {}


def _embed_column(embed: Embed, role: str, texts: list[str | None]) -> Tensor:
    """Zeros for a missing negative, as in training."""
    vectors = torch.from_numpy(embed(role, [text or "" for text in texts]))
    is_missing = torch.tensor([text is None for text in texts])
    return vectors.masked_fill(is_missing[:, None], 0)


def _label(rows: Examples, need: LabelNeeds) -> Tensor | None:
    match need.source(rows):
        case "scores" if rows.scores is not None:
            return torch.from_numpy(rows.scores)
        case "embedding" if rows.embedding is not None:
            return torch.from_numpy(rows.embedding[:, None])
        case "label" if rows.label is not None:
            return torch.from_numpy(rows.label)
    return None
