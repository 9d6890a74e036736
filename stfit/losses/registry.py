"""All losses, and how one is built and computed.

Values and gradients are those of sentence-transformers 6.2, except where stfit refuses or guards on purpose:

- a zero vector gets zero gradient from a cosine (there: 1e7 to 1e13, which drowns the batch);
- a batch whose labels are all the same is a DataError for the batch triplet losses (there: a constant, or noise);
- a column or a label that a loss would ignore is a RecipeError (there: embedded and dropped, or silently wrong);
- a Matryoshka prefix is given to its loss as it is (there: at length 1, which a cosine does not see).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from stfit.errors import DataError, ModelError
from stfit.lazy import lazy
from stfit.losses.base import Columns
from stfit.losses.distillation import MSE, DistillKLDiv, EmbedDistill, MarginMSE, TeacherCosine
from stfit.losses.pairs import AnglE, Contrastive, CoSENT, CosineSimilarity, OnlineContrastive, Softmax
from stfit.losses.ranking import GISTEmbed, MegaBatchMargin, MultipleNegativesRanking, MultipleNegativesSymmetricRanking
from stfit.losses.triplets import (
    BatchAllTriplet,
    BatchHardSoftMarginTriplet,
    BatchHardTriplet,
    BatchSemiHardTriplet,
    Triplet,
)
from stfit.spec import Choice, union_members

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

BuiltLoss = Callable[[Columns, "Tensor | None"], "Tensor"]

Loss = Annotated[
    Contrastive
    | OnlineContrastive
    | Softmax
    | CosineSimilarity
    | CoSENT
    | AnglE
    | MultipleNegativesRanking
    | MultipleNegativesSymmetricRanking
    | MegaBatchMargin
    | GISTEmbed
    | Triplet
    | BatchHardTriplet
    | BatchAllTriplet
    | BatchHardSoftMarginTriplet
    | BatchSemiHardTriplet
    | EmbedDistill
    | MSE
    | TeacherCosine
    | MarginMSE
    | DistillKLDiv,
    Choice("loss", "fits", "sampler", "min_batch_size", "__call__"),
]

LOSSES: list[Any] = list(union_members(Loss))
"""The classes of the union, those of installed packages among them."""


def build_loss(spec: Loss, embedding_dim: int, num_classes: int | None = None) -> BuiltLoss:
    """The loss to call: the spec itself, or what its `build` gives, an nn.Module with weights to train and checkpoint.

    ModelError where a Matryoshka dimension exceeds the embedding; DataError where softmax has no classes to tell apart.
    """
    if isinstance(spec, Softmax) and (num_classes is None or num_classes < 2):
        raise DataError(f"loss `softmax` tells classes apart, but the data has {num_classes or 'no'} class labels")
    if (build := getattr(spec, "build", None)) is not None:  # what it builds has weights
        built: BuiltLoss = build(embedding_dim, num_classes)
        return built
    too_large = [dim for dim in getattr(spec, "matryoshka_dims", None) or [] if dim > embedding_dim]
    if too_large:
        raise ModelError(f"`loss.matryoshka_dims` {too_large}: the model's embeddings have {embedding_dim} dimensions")
    return spec  # type: ignore[return-value]  # softmax, which can't be called, was built above


def compute_loss(loss: BuiltLoss, columns: Columns, label: Tensor | None) -> Tensor:
    """Scalar loss of one batch, never in half precision; with `matryoshka_dims`, the sum over embeddings cut to each.

    `columns`: name -> [rows, dim]; `label`: [rows]. Matryoshka: Kusupati et al., 2022,
    https://arxiv.org/abs/2205.13147.
    """
    dims: list[int] | None = getattr(loss, "matryoshka_dims", None)
    weights: list[float] | None = getattr(loss, "matryoshka_weights", None)
    device = next(iter(columns.values())).device.type
    with torch.autocast(device, enabled=False):  # it would round the similarities, which `scale` then multiplies
        if dims is None:
            return loss(columns, label)
        prefixes = [{name: vectors[:, :dim] for name, vectors in columns.items()} for dim in dims]
        losses = torch.stack([loss(prefix, label) for prefix in prefixes])
        return losses.sum() if weights is None else (losses * losses.new_tensor(weights)).sum()
