"""Losses that want an anchor nearer to its positive than to its negative, by a margin.

`triplet` reads its triplets from the data; the batch losses find them among the rows of one batch: positives are the
other rows of the anchor's label, negatives the rows of other labels. A batch of one label has no negative: a DataError.
Tensor names: r = rows, d = dim; in [r, r] the first axis is the anchor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stfit.errors import DataError
from stfit.lazy import lazy
from stfit.losses.base import Accepts, Columns, Dims, DimWeights, Sampler, require_columns
from stfit.similarity import distance_matrix, pairwise_distance
from stfit.spec import Spec

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch = lazy("torch")
    F = lazy("torch.nn.functional")


Distance = Literal["cosine", "euclidean", "manhattan"]
BatchDistance = Literal["euclidean", "squared_euclidean", "cosine"]


class Triplet(Spec):
    """Mean over the rows of max(0, d(anchor, positive) - d(anchor, negative) + margin), d = distance.

    One negative a row: write `negative: set.neg[*]` to make a row of each (FaceNet, https://arxiv.org/abs/1503.03832).
    """

    aliases: ClassVar[tuple[str, ...]] = ("TripletLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("triplet", "none"),)
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 1

    type: Literal["triplet"] = "triplet"
    distance: Distance = "euclidean"
    """euclidean, manhattan, or cosine (1 - cosine similarity, at most 2: choose a margin below that)."""
    margin: float = Field(5.0, ge=0)
    """How much farther the negative should be than the positive."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `anchor`, `positive` and `negative` [rows, dim]."""
        anchor_rd, positive_rd, negative_rd = require_columns(
            self.tag(), columns, label, "anchor", "positive", "negative"
        )
        near_r = pairwise_distance(self.distance, anchor_rd, positive_rd)
        far_r = pairwise_distance(self.distance, anchor_rd, negative_rd)
        return F.relu(near_r - far_r + self.margin).mean()


class BatchHardTriplet(Spec):
    """Each row as an anchor, with its farthest positive and its nearest negative: mean of max(0, d+ - d- + margin).

    d+ of a row that is alone with its label counts as 0 (Hermans et al., 2017, https://arxiv.org/abs/1703.07737).
    """

    aliases: ClassVar[tuple[str, ...]] = ("BatchHardTripletLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_text", "class"),)
    sampler: ClassVar[Sampler] = "group_by_label"
    min_batch_size: ClassVar[int] = 3

    type: Literal["batch_hard_triplet"] = "batch_hard_triplet"
    distance: BatchDistance = "euclidean"
    """euclidean, squared_euclidean, or cosine (1 - cosine similarity, at most 2: choose a margin below that)."""
    margin: float = Field(5.0, ge=0)
    """How much farther the negative should be than the positive."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `text` [rows, dim] with `label` [rows]."""
        distance_rr, same_rr = _compare_rows(self.tag(), columns, label, self.distance)
        return F.relu(_hardest_gap(distance_rr, same_rr) + self.margin).mean()


class BatchHardSoftMarginTriplet(Spec):
    """batch_hard_triplet without a margin to choose: mean of log(1 + exp(d+ - d-)).

    Hermans et al., 2017, https://arxiv.org/abs/1703.07737.
    """

    aliases: ClassVar[tuple[str, ...]] = ("BatchHardSoftMarginTripletLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_text", "class"),)
    sampler: ClassVar[Sampler] = "group_by_label"
    min_batch_size: ClassVar[int] = 3

    type: Literal["batch_hard_soft_margin_triplet"] = "batch_hard_soft_margin_triplet"
    distance: BatchDistance = "euclidean"
    """euclidean, squared_euclidean, or cosine (1 - cosine similarity)."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `text` [rows, dim] with `label` [rows]."""
        distance_rr, same_rr = _compare_rows(self.tag(), columns, label, self.distance)
        return F.softplus(_hardest_gap(distance_rr, same_rr)).mean()


class BatchAllTriplet(Spec):
    """All triplets of a batch: mean of max(0, d+ - d- + margin) over those above 0, or 0 where there are none.

    Hermans et al., 2017, https://arxiv.org/abs/1703.07737.
    """

    aliases: ClassVar[tuple[str, ...]] = ("BatchAllTripletLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_text", "class"),)
    sampler: ClassVar[Sampler] = "group_by_label"
    min_batch_size: ClassVar[int] = 3

    type: Literal["batch_all_triplet"] = "batch_all_triplet"
    distance: BatchDistance = "euclidean"
    """euclidean, squared_euclidean, or cosine (1 - cosine similarity, at most 2: choose a margin below that)."""
    margin: float = Field(5.0, ge=0)
    """How much farther the negative should be than the positive."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `text` [rows, dim] with `label` [rows]."""
        distance_rr, same_rr = _compare_rows(self.tag(), columns, label, self.distance)
        # With an anchor's negatives sorted, those that cost something are a prefix, and a cumulative sum has the cost:
        # no [r, r, r] cube. Only differences count, so each anchor's distances are centred to keep digits in long sums.
        distance_rr = distance_rr - distance_rr.detach().mean(dim=1, keepdim=True)
        negative_rr = distance_rr.masked_fill(same_rr, torch.inf).sort(dim=1).values
        limit_rr = distance_rr + self.margin
        count_rr = torch.searchsorted(negative_rr.detach(), limit_rr.detach())
        prefix = F.pad(negative_rr.masked_fill(negative_rr == torch.inf, 0).cumsum(dim=1), (1, 0))
        cost_rr = count_rr * limit_rr - prefix.gather(1, count_rr)
        positive_rr = _without_itself(same_rr)
        return torch.where(positive_rr, cost_rr, 0).sum() / torch.where(positive_rr, count_rr, 0).sum().clamp(min=1)


class BatchSemiHardTriplet(Spec):
    """Every anchor and positive, with the nearest negative that is farther away than the positive.

    Mean of max(0, d+ - d- + margin). Where no negative is farther, the farthest one stands in
    (FaceNet, https://arxiv.org/abs/1503.03832).
    """

    aliases: ClassVar[tuple[str, ...]] = ("BatchSemiHardTripletLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_text", "class"),)
    sampler: ClassVar[Sampler] = "group_by_label"
    min_batch_size: ClassVar[int] = 3

    type: Literal["batch_semi_hard_triplet"] = "batch_semi_hard_triplet"
    distance: BatchDistance = "euclidean"
    """euclidean, squared_euclidean, or cosine (1 - cosine similarity, at most 2: choose a margin below that)."""
    margin: float = Field(5.0, ge=0)
    """How much farther the negative should be than the positive."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `text` [rows, dim] with `label` [rows]."""
        distance_rr, same_rr = _compare_rows(self.tag(), columns, label, self.distance)
        negative_rr = distance_rr.masked_fill(same_rr, torch.inf).sort(dim=1).values
        nearer_rr = torch.searchsorted(negative_rr.detach(), distance_rr.detach(), right=True)
        next_rr = negative_rr.gather(1, nearer_rr.clamp(max=len(negative_rr) - 1))
        farthest_r1 = distance_rr.masked_fill(same_rr, -torch.inf).max(dim=1, keepdim=True).values
        chosen_rr = torch.where(next_rr < torch.inf, next_rr, farthest_r1)
        positive_rr = _without_itself(same_rr)
        cost_rr = torch.where(positive_rr, F.relu(distance_rr - chosen_rr + self.margin), 0)
        return cost_rr.sum() / positive_rr.sum().clamp(min=1)


def _compare_rows(loss: str, columns: Columns, label: Tensor | None, distance: BatchDistance) -> tuple[Tensor, Tensor]:
    """Distances of all rows of a batch, and which of them share a label (a row with itself, too): [r, r] both."""
    text_rd, label_r = require_columns(loss, columns, label, "text", "label")
    same_rr = label_r[:, None] == label_r
    if same_rr.all():
        raise DataError(
            f"all {len(label_r)} rows of the batch have the same label, so loss `{loss}` finds no negative: "
            "use `train.sampler: group_by_label`, or a larger `train.batch_size`"
        )
    return distance_matrix(distance, text_rd), same_rr


def _without_itself(same_rr: Tensor) -> Tensor:
    """Pairs of rows that share a label, a row with itself left out."""
    return same_rr & ~torch.eye(len(same_rr), dtype=torch.bool, device=same_rr.device)


def _hardest_gap(distance_rr: Tensor, same_rr: Tensor) -> Tensor:
    """For each anchor, [r]: distance to its farthest positive (0 without one) minus that to its nearest negative."""
    farthest_r = torch.where(_without_itself(same_rr), distance_rr, 0).max(dim=1).values
    nearest_r = distance_rr.masked_fill(same_rr, torch.inf).min(dim=1).values
    return farthest_r - nearest_r
