"""The base of every loss, and checks of what a loss is given."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema

from stfit.errors import DataError, ModelError, RecipeError
from stfit.lazy import Tensor, torch
from stfit.losses.straight_through import Precision
from stfit.paths import Location
from stfit.spec import Spec

Columns = dict[str, Tensor]
BuiltLoss = Callable[[Columns, Tensor | None], Tensor]
Sampler = Literal["shuffle", "no_duplicates", "group_by_label"]


def _one_per_dim(weights: list[float] | None, others: ValidationInfo) -> list[float] | None:
    dims = others.data.get("matryoshka_dims") or []
    if weights is not None and len(weights) != len(dims):
        raise ValueError(f"{len(weights)} weights, but `matryoshka_dims` has {len(dims)} dimensions")
    return weights


def _only_on_hub(revision: str | None, others: ValidationInfo) -> str | None:
    teacher = others.data.get("teacher") or others.data.get("cross_encoder") or "/"
    if revision is not None and isinstance(teacher, CrossEncoderTeacher):
        raise ValueError("is that of `teacher`: write it there, below `cross_encoder`")
    if revision is not None and Path(teacher).is_absolute():
        raise ValueError("selects a version on the Hub, but the teacher is not on the Hub")
    return revision


def _fewer_than_dims(number: int | None, others: ValidationInfo) -> int | None:
    dims = others.data.get("matryoshka_dims") or []
    if number is not None and number >= len(dims):
        raise ValueError(f"draws {number} of the {len(dims)} `matryoshka_dims`: set fewer, or remove this key")
    return number


def _with_text(name: str) -> Callable[[str], str]:
    def check(template: str) -> str:
        if f"{{{name}}}" not in template:
            raise ValueError(f"lacks {{{name}}}, in whose place the text is written")
        return template

    return check


KEYS_OF_EVERY_LOSS = (
    "weight",
    "columns",
    "matryoshka_dims",
    "matryoshka_weights",
    "n_dims_per_step",
    "precisions",
)


class Accepts(NamedTuple):
    format: str
    label: Literal["none", "binary", "class", "score", "number", "scores", "embedding", "teacher"]
    """Meaning of the label: 0 or 1, a class number, a similarity from 0 to 1, any number, scores of the positive and
    the negatives, one embedding for all texts of a row, or what a teacher says (see `TeacherLoss`)."""


class LossBase(Spec):
    """A loss: the data it accepts, how that data is batched, and the value of a batch.

    A loss without weights implements `__call__`; a loss with weights implements `build`.
    """

    fits: ClassVar[tuple[Accepts, ...]]
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 1
    views: ClassVar[tuple[str, ...]] = ()
    """Columns into which each text of the format `text` is copied; empty keeps its own column."""
    takes_any_columns: ClassVar[bool] = False
    """Whether `columns` can select any columns of a format; otherwise they have to form a format of their own."""

    weight: float = Field(1.0, ge=0)
    """Factor of this loss in the sum, if `loss` is a list."""
    columns: Annotated[list[str] | None, Field(min_length=1)] = None
    """Columns that this loss works on, such as [anchor, positive]; null = all columns of the format."""
    matryoshka_dims: list[Annotated[int, Field(gt=0)]] | None = Field(None, min_length=1)
    """Embedding sizes to train, including the full one; the losses of all these prefixes are summed. null = off."""
    matryoshka_weights: Annotated[list[Annotated[float, Field(gt=0)]] | None, AfterValidator(_one_per_dim)] = None
    """Weight of each of `matryoshka_dims` in the sum; null = 1 each."""
    n_dims_per_step: Annotated[int | None, Field(gt=0), AfterValidator(_fewer_than_dims)] = None
    """Number of `matryoshka_dims` that are drawn for each batch, which is faster; null = all of them."""
    precisions: list[Precision] | None = Field(None, min_length=1)
    """Precisions to train, such as [float32, binary]: the losses of the embeddings as they are stored in each are
    summed, with gradients that pass through the rounding. null = float32 alone."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Order fields for the schema and dumps: `type` first, those of every loss last (pydantic: inherited first)."""
        place = {"type": -1} | dict.fromkeys(KEYS_OF_EVERY_LOSS, 1)
        fields = sorted(cls.model_fields.items(), key=lambda item: place.get(item[0], 0))
        cls.model_fields.clear()
        cls.model_fields.update(fields)
        return handler(source)

    @property
    def is_built(self) -> bool:
        """Whether it is called through what `build` makes: a loss with weights, which fit whole embeddings."""
        return type(self).build is not LossBase.build

    def select(self, columns: Columns) -> Columns:
        """The columns that this loss works on; `negative` stands for all columns of negatives."""
        if self.columns is None:
            return columns
        return {name: vectors for name, vectors in columns.items() if role_of(name) in self.columns}

    def format_of(self, format: str, roles: Sequence[str]) -> str | None:
        """The format of the columns that it selects of these roles; None if they form none."""
        chosen = set(self.columns or roles)
        if self.takes_any_columns or chosen == set(roles):
            return format
        return "positive_pair" if chosen == {"anchor", "positive"} else None

    def label_kinds(self, format: str, roles: Sequence[str]) -> tuple[str, ...]:
        """The kinds of labels that it takes in the format of its columns."""
        return tuple(fit.label for fit in self.fits if fit.format == self.format_of(format, roles))

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of a batch: `columns` [rows, dim] each, `label` [rows] if the format has one."""
        raise NotImplementedError

    def build(self, embedding_dim: int, num_classes: int | None) -> BuiltLoss:
        """The loss to call: an nn.Module to train and checkpoint if it has weights, else the loss itself."""
        return self


class CrossEncoderTeacher(Spec):
    """A reranker, which scores an anchor together with each of its candidates."""

    cross_encoder: Location
    """Hub id or folder of a sequence-classification model with one output. Its scores are cached on disk."""
    revision: Annotated[str | None, AfterValidator(_only_on_hub)] = None
    """Branch, tag or commit of a model on the Hub."""
    query_template: Annotated[str, AfterValidator(_with_text("query"))] = "{query}"
    """What the model reads as its first text; {query} stands for the anchor."""
    document_template: Annotated[str, AfterValidator(_with_text("document"))] = "{document}"
    """What it reads as its second text; {document} stands for the positive or a negative."""
    max_seq_length: int | None = Field(None, gt=0)
    """Tokens of a pair, beyond which the longer text is cut; null = at most 512."""


class TeacherLoss(LossBase):
    """A loss that learns from the embeddings of another model.

    The teacher embeds every text once, before the first step. Its embeddings replace the label of a batch: [rows,
    columns it reads, its dim], columns in their order. A cross-encoder's scores replace it, too: [rows, candidates].
    """

    same_dim: ClassVar[bool] = False

    teacher: Location | CrossEncoderTeacher | None
    """Hub id or folder of the model to learn from. Its embeddings are cached on disk and reused by other runs."""
    revision: Annotated[str | None, AfterValidator(_only_on_hub)] = None
    """Branch, tag or commit of a teacher on the Hub."""

    def taught_roles(self, roles: list[str]) -> list[str]:
        return roles

    def require_teacher_dim(self, model_dim: int, teacher_dim: int) -> None:
        if self.same_dim and model_dim != teacher_dim:
            taught = "the data has" if self.teacher is None else "the teacher has"
            raise ModelError(
                f"loss `{self.tag()}` needs embeddings of equal size, but {taught} {teacher_dim} dimensions and "
                f"the model {model_dim}: end `model.layers` with {{type: dense, out_features: {teacher_dim}, "
                "activation: identity}, or use loss teacher_cosine or margin_mse"
            )

    def require_columns_with_teacher(
        self, columns: Columns, label: Tensor | None, names: list[str] | None = None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """The tensors of `names` [rows, dim], the teacher's embeddings [rows, columns it reads, its dim], which exist.

        Default: anchor, positive, negatives. A negative of exact zeros is missing in the third, [rows, columns].
        """
        names = names or _ranked(columns)
        tensors = require_columns(self.tag(), columns, None, *names)
        rows, texts = len(tensors[0]), len(self.taught_roles(names))
        if label is None or label.ndim != 3 or label.shape[:2] != (rows, texts):
            shape = "is missing" if label is None else f"has the shape {list(label.shape)}"
            raise DataError(
                f"loss `{self.tag()}` needs a teacher's embeddings of {texts} texts in {rows} rows; the label {shape}"
            )
        zero_rc = torch.stack([(tensor == 0).all(dim=1) for tensor in tensors], dim=1)
        can_miss_c = torch.tensor([name.startswith("negative") for name in names], device=zero_rc.device)
        return tensors, upcast(label).to(tensors[0].dtype), ~(zero_rc & can_miss_c)

    def require_columns_with_scores(
        self, columns: Columns, label: Tensor | None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """The tensors of anchor, positive and negatives [rows, dim], and scores in the data [rows, candidates].

        A candidate whose score is not a number is missing in the third, and has the score 0.
        """
        tensors = require_columns(self.tag(), columns, None, *_ranked(columns))
        shape = (len(tensors[0]), len(tensors) - 1)
        if label is None or label.shape != shape:
            found = "they are missing" if label is None else f"they have the shape {list(label.shape)}"
            raise DataError(f"loss `{self.tag()}` needs scores of {shape[1]} candidates in {shape[0]} rows; {found}")
        present_rn = ~label.isnan()
        return tensors, upcast(label).to(tensors[0].dtype).masked_fill(~present_rn, 0), present_rn


def best_sampler(losses: Sequence[LossBase]) -> Sampler:
    """The one that the losses were made for; losses that need different ones have no format in common."""
    return next((loss.sampler for loss in losses if loss.sampler != "shuffle"), "shuffle")


def views_of(losses: Sequence[LossBase], format: str) -> tuple[str, ...]:
    """The columns into which each text of format `text` is copied; empty for other formats."""
    return next((loss.views for loss in losses if loss.views), ()) if format == "text" else ()


def role_of(column: str) -> str:
    return "negative" if column.startswith("negative") else column


def _ranked(columns: Columns) -> list[str]:
    return ["anchor", "positive", *(name for name in columns if name.startswith("negative"))]


def require_columns(loss: str, columns: Columns, label: Tensor | None, *names: str) -> list[Tensor]:
    """The tensors of `names` in this order (`label` is one of the names), half precision as float32.

    Raises RecipeError if a column is missing or would be ignored, DataError unless `label` is one number per row.
    """
    given = columns if label is None else {**columns, "label": label}
    if set(given) != set(names):
        unused = ", ".join(name for name in given if name not in names) or "none"
        missing = ", ".join(name for name in names if name not in given) or "none"
        raise RecipeError(
            f"loss `{loss}` takes the columns {', '.join(names)}; not used: {unused}; missing: {missing}. "
            "Change `data.columns`, or choose another loss"
        )
    rows = len(given[names[0]])
    if label is not None and label.shape != (rows,):
        raise DataError(f"loss `{loss}` needs one label per row: {rows} rows, but labels of shape {list(label.shape)}")
    return [upcast(given[name]) for name in names]


def upcast(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
