"""All losses, and how a loss is built and computed.

Values and gradients equal those of sentence-transformers 6.2, with these deliberate exceptions:

- a zero vector gets zero gradient from a cosine (there: 1e7 to 1e13, which dominates the batch);
- a batch whose labels are all equal is a DataError for the batch triplet losses (there: a constant, or noise);
- a column or a label that a loss would ignore is a RecipeError (there: embedded and dropped, or silently wrong);
- a Matryoshka prefix reaches its loss unchanged (there: scaled to length 1, which makes no difference to a cosine).
"""

from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from stfit.errors import ModelError, RecipeError
from stfit.lazy import Tensor, torch
from stfit.losses.base import BuiltLoss, Columns, LossBase
from stfit.losses.distillation import MSE, DistillKLDiv, EmbedDistill, MarginMSE, TeacherCosine
from stfit.losses.orthogonal import GlobalOrthogonalRegularization
from stfit.losses.pairs import AnglE, Contrastive, CoSENT, CosineSimilarity, OnlineContrastive, Softmax
from stfit.losses.ranking import GISTEmbed, MegaBatchMargin, MultipleNegativesRanking, MultipleNegativesSymmetricRanking
from stfit.losses.straight_through import store
from stfit.losses.triplets import (
    BatchAllTriplet,
    BatchHardSoftMarginTriplet,
    BatchHardTriplet,
    BatchSemiHardTriplet,
    Triplet,
)
from stfit.spec import Choice, union_members

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
    | DistillKLDiv
    | GlobalOrthogonalRegularization,
    Choice("loss", LossBase, "fits"),
]

LOSSES: list[Any] = list(union_members(Loss))


def _require_weight(loss: LossBase | list[LossBase]) -> LossBase | list[LossBase]:
    terms = loss if isinstance(loss, list) else [loss]
    if not any(term.weight for term in terms):
        raise ValueError("all weights are 0, so that nothing is minimized: raise a `weight`")
    return loss


Losses = Annotated[Loss | Annotated[list[Loss], Field(min_length=1)], AfterValidator(_require_weight)]
"""One loss, or several whose weighted sum is minimized."""


def build_loss(loss: LossBase, embedding_dim: int, num_classes: int | None = None) -> BuiltLoss:
    """The loss to call, an nn.Module if it has weights. Raises ModelError for a too large Matryoshka dimension."""
    too_large = [dim for dim in loss.matryoshka_dims or [] if dim > embedding_dim]
    if too_large:
        raise ModelError(f"`loss.matryoshka_dims` {too_large}: the model's embeddings have {embedding_dim} dimensions")
    built = loss.build(embedding_dim, num_classes)
    if not callable(built):
        raise RecipeError(f"loss `{loss.tag()}`: its `build` returns {built!r:.60}, which can't be called")
    return built


def compute_loss(loss: BuiltLoss, columns: Columns, label: Tensor | None, seed: int = 0) -> Tensor:
    """Scalar loss of one batch, never in half precision: the sum over `matryoshka_dims` and `precisions`.

    `columns`: name -> [rows, dim]; `label`: [rows]; `seed` draws the prefixes if `n_dims_per_step` leaves some out.
    Matryoshka: Kusupati et al., 2022, https://arxiv.org/abs/2205.13147.
    """
    device = next(iter(columns.values())).device.type
    with torch.autocast(device, enabled=False):  # it would round the similarities, which `scale` then multiplies
        if not isinstance(loss, LossBase) or (loss.matryoshka_dims is None and loss.precisions is None):
            return loss(columns, label)
        dims = loss.matryoshka_dims or [next(iter(columns.values())).shape[1]]
        weights = loss.matryoshka_weights or [1.0] * len(dims)
        drawn, precisions = _draw(len(dims), loss.n_dims_per_step, seed), loss.precisions or ["float32"]
        prefixes = [{name: vectors[:, : dims[i]] for name, vectors in columns.items()} for i in drawn]
        losses = torch.stack([loss(store(prefix, each), label) for prefix in prefixes for each in precisions])
        return (losses * losses.new_tensor([weights[i] for i in drawn for _ in precisions])).sum()


def _draw(dims: int, number: int | None, seed: int) -> list[int]:
    """The indices of the prefixes to compute, in their order."""
    if number is None:
        return list(range(dims))
    return sorted(np.random.default_rng(seed).choice(dims, number, replace=False).tolist())
