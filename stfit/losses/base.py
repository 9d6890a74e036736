"""What a loss is given, and what it says about the data it can use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationInfo

from stfit.errors import DataError, RecipeError
from stfit.lazy import lazy
from stfit.spec import Spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

Columns = dict[str, "Tensor"]
"""Name of a text column -> embeddings [rows, dim]."""
Sampler = Literal["shuffle", "no_duplicates", "group_by_label"]
Dims = Annotated[
    list[Annotated[int, Field(gt=0)]] | None,
    Field(
        min_length=1,
        description="Prefixes of the embedding to train, the full length among them: losses are summed. null = off.",
    ),
]


def _one_for_each_dim(weights: list[float] | None, others: ValidationInfo) -> list[float] | None:
    """As many weights as dimensions."""
    dims = others.data.get("matryoshka_dims") or []
    if weights is not None and len(weights) != len(dims):
        raise ValueError(f"{len(weights)} weights for the {len(dims)} dimensions of `matryoshka_dims`")
    return weights


DimWeights = Annotated[
    list[Annotated[float, Field(gt=0)]] | None,
    AfterValidator(_one_for_each_dim),
    Field(description="What the loss of each of `matryoshka_dims` counts in the sum; null = 1 each."),
]


def _of_the_hub(revision: str | None, others: ValidationInfo) -> str | None:
    """A folder of this machine has no revisions to choose from."""
    if revision is not None and Path(others.data.get("teacher") or "/").is_absolute():
        raise ValueError("names a version on the Hub, and `teacher` is not there")
    return revision


TeacherRevision = Annotated[
    str | None, AfterValidator(_of_the_hub), Field(description="Branch, tag or commit of a teacher on the Hub.")
]


class Accepts(NamedTuple):
    """A kind of data that a loss can learn from."""

    format: str
    """One of the five formats."""
    label: Literal["none", "binary", "class", "score", "number", "teacher"]
    """What its label means: 0 or 1, the number of a class, a similarity from 0 to 1, any number; or that a teacher's
    embeddings take its place, see `require_columns_with_teacher`."""


def require_columns(loss: str, columns: Columns, label: Tensor | None, *names: str) -> list[Tensor]:
    """The tensors of `names` in their order (`label` is one of the names), half precision widened to float32.

    RecipeError where a column is missing or would be ignored; DataError where `label` isn't one number a row.
    """
    given = columns if label is None else {**columns, "label": label}
    if set(given) != set(names):
        unused = ", ".join(name for name in given if name not in names) or "none"
        absent = ", ".join(name for name in names if name not in given) or "none"
        raise RecipeError(
            f"loss `{loss}` takes the columns {', '.join(names)}; not used: {unused}; missing: {absent}. "
            "Change `data.columns`, or choose a loss that fits them"
        )
    rows = len(given[names[0]])
    if label is not None and label.shape != (rows,):
        raise DataError(f"loss `{loss}` needs one label a row: {rows} rows, but labels of shape {list(label.shape)}")
    return [upcast(given[name]) for name in names]


def require_columns_with_teacher(
    loss: Spec, columns: Columns, label: Tensor | None, names: list[str]
) -> tuple[list[Tensor], Tensor]:
    """The tensors of `names`, and what the teacher makes of their texts, [rows, columns it reads, its dim].

    RecipeError and DataError as `require_columns`.
    """
    tensors = require_columns(loss.tag(), columns, None, *names)
    rows, texts = len(tensors[0]), len(taught_roles(loss, names))
    if label is None or label.ndim != 3 or label.shape[:2] != (rows, texts):
        found = "none" if label is None else f"of shape {list(label.shape)}"
        raise DataError(
            f"loss `{loss.tag()}` needs a teacher's embeddings of {texts} texts in {rows} rows; its label is {found}"
        )
    return tensors, upcast(label).to(tensors[0].dtype)


def taught_roles(loss: Spec, roles: list[str]) -> list[str]:
    """The columns whose texts the loss's teacher reads."""
    return roles[:1] if getattr(loss, "target", "own") == "anchor" else roles


def presence_mask(names: list[str], tensors: list[Tensor]) -> Tensor:
    """Which texts are there, [rows, columns]: a negative of exact zeros is missing."""
    zero_rc = torch.stack([(tensor == 0).all(dim=1) for tensor in tensors], dim=1)
    can_miss_c = torch.tensor([name.startswith("negative") for name in names], device=zero_rc.device)
    return ~(zero_rc & can_miss_c)


def upcast(tensor: Tensor) -> Tensor:
    """float32 for half precision; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
