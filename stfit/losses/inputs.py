"""What a loss is given, and what it says about the data it can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from stfit.errors import DataError, RecipeError
from stfit.lazy import lazy

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


class Fit(NamedTuple):
    """A kind of data that a loss can learn from."""

    format: str
    """One of the four formats."""
    label: Literal["none", "binary", "class", "score"]
    """What its label means: 0 or 1, the number of a class, or a similarity from 0 to 1."""


def take(loss: str, columns: Columns, label: Tensor | None, *names: str) -> list[Tensor]:
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
    return [widen(given[name]) for name in names]


def widen(tensor: Tensor) -> Tensor:
    """float32 for half precision; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
