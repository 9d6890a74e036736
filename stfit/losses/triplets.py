"""Losses that want an anchor closer to its positive than to its negative, by a margin.

`triplet` reads its triplets from the data. The batch losses form them from the rows of one batch: an anchor's positives
are the other rows with its label, its negatives the rows with other labels. A batch with one label only is a DataError.
Tensor names: r = rows, d = dim; in [r, r] the first axis is the anchor.
"""

from typing import Literal

from pydantic import Field

from stfit.errors import DataError
from stfit.lazy import F, Tensor, torch
from stfit.losses.base import Accepts, Columns, LossBase, require_columns
from stfit.similarity import distance_matrix, pairwise_distance


class Triplet(LossBase):
    """Mean over the rows of max(0, d(anchor, positive) - d(anchor, negative) + margin), d = distance.

    One negative per row: `negative: set.neg[*]` makes one row for each (FaceNet, https://arxiv.org/abs/1503.03832).
    """

    aliases = ("TripletLoss",)
    fits = (Accepts("triplet", "none"),)

    type: Literal["triplet"] = "triplet"
    distance: Literal["cosine", "euclidean", "manhattan"] = "euclidean"
    """euclidean, manhattan, or cosine (1 - cosine similarity, at most 2: choose a smaller margin)."""
    margin: float = Field(5.0, ge=0)
    """How much farther than the positive the negative should be."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        names = ("anchor", "positive", "negative")
        anchor_rd, positive_rd, negative_rd = require_columns(self.tag(), columns, label, *names)
        positive_r = pairwise_distance(self.distance, anchor_rd, positive_rd)
        negative_r = pairwise_distance(self.distance, anchor_rd, negative_rd)
        return F.relu(positive_r - negative_r + self.margin).mean()


class _BatchTriplet(LossBase):
    fits = (Accepts("labeled_text", "class"),)
    sampler = "group_by_label"
    min_batch_size = 3

    distance: Literal["euclidean", "squared_euclidean", "cosine"] = "euclidean"
    """euclidean, squared_euclidean, or cosine (1 - cosine similarity, at most 2: choose a smaller margin)."""

    def compare_rows(self, columns: Columns, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Distances of all rows [r, r], and which rows share a label [r, r] (including a row with itself)."""
        text_rd, label_r = require_columns(self.tag(), columns, label, "text", "label")
        same_rr = label_r[:, None] == label_r
        if same_rr.all():
            raise DataError(
                f"all {len(label_r)} rows of the batch have the same label, so loss `{self.tag()}` has no negatives: "
                "use `train.sampler: group_by_label`, or a larger `train.batch_size`"
            )
        return distance_matrix(self.distance, text_rd), same_rr


class BatchHardTriplet(_BatchTriplet):
    """Each row as an anchor, with its farthest positive and its closest negative: mean of max(0, d+ - d- + margin).

    d+ is 0 for a row whose label occurs only once (Hermans et al., 2017, https://arxiv.org/abs/1703.07737).
    """

    aliases = ("BatchHardTripletLoss",)

    type: Literal["batch_hard_triplet"] = "batch_hard_triplet"
    margin: float = Field(5.0, ge=0)
    """How much farther than the positive the negative should be."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        return F.relu(_hardest_gap(*self.compare_rows(columns, label)) + self.margin).mean()


class BatchHardSoftMarginTriplet(_BatchTriplet):
    """batch_hard_triplet with a soft margin, which has no parameter: mean of log(1 + exp(d+ - d-)).

    Hermans et al., 2017, https://arxiv.org/abs/1703.07737.
    """

    aliases = ("BatchHardSoftMarginTripletLoss",)

    type: Literal["batch_hard_soft_margin_triplet"] = "batch_hard_soft_margin_triplet"
    distance: Literal["euclidean", "squared_euclidean", "cosine"] = "euclidean"
    """euclidean, squared_euclidean, or cosine (1 - cosine similarity)."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        return F.softplus(_hardest_gap(*self.compare_rows(columns, label))).mean()


class BatchAllTriplet(_BatchTriplet):
    """All triplets of a batch: mean of max(0, d+ - d- + margin) over those above 0, or 0 if there are none.

    Hermans et al., 2017, https://arxiv.org/abs/1703.07737.
    """

    aliases = ("BatchAllTripletLoss",)

    type: Literal["batch_all_triplet"] = "batch_all_triplet"
    margin: float = Field(5.0, ge=0)
    """How much farther than the positive the negative should be."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        distance_rr, same_rr = self.compare_rows(columns, label)
        # With an anchor's negatives sorted, those with a cost are a prefix, whose cumulative sum gives the cost without
        # an [r, r, r] cube. Only differences count: centring each anchor's distances keeps digits in long sums.
        distance_rr = distance_rr - distance_rr.detach().mean(dim=1, keepdim=True)
        negative_rr = distance_rr.masked_fill(same_rr, torch.inf).sort(dim=1).values
        limit_rr = distance_rr + self.margin
        count_rr = torch.searchsorted(negative_rr.detach(), limit_rr.detach())
        prefix = F.pad(negative_rr.masked_fill(negative_rr == torch.inf, 0).cumsum(dim=1), (1, 0))
        cost_rr = count_rr * limit_rr - prefix.gather(1, count_rr)
        positive_rr = _without_diagonal(same_rr)
        return torch.where(positive_rr, cost_rr, 0).sum() / torch.where(positive_rr, count_rr, 0).sum().clamp(min=1)


class BatchSemiHardTriplet(_BatchTriplet):
    """Every anchor and positive, with the closest negative that is farther away than the positive.

    Mean of max(0, d+ - d- + margin). If no negative is farther than the positive, the farthest negative is used
    (FaceNet, https://arxiv.org/abs/1503.03832).
    """

    aliases = ("BatchSemiHardTripletLoss",)

    type: Literal["batch_semi_hard_triplet"] = "batch_semi_hard_triplet"
    margin: float = Field(5.0, ge=0)
    """How much farther than the positive the negative should be."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        distance_rr, same_rr = self.compare_rows(columns, label)
        negative_rr = distance_rr.masked_fill(same_rr, torch.inf).sort(dim=1).values
        closer_rr = torch.searchsorted(negative_rr.detach(), distance_rr.detach(), right=True)
        next_rr = negative_rr.gather(1, closer_rr.clamp(max=len(negative_rr) - 1))
        farthest_r1 = distance_rr.masked_fill(same_rr, -torch.inf).max(dim=1, keepdim=True).values
        chosen_rr = torch.where(next_rr < torch.inf, next_rr, farthest_r1)
        positive_rr = _without_diagonal(same_rr)
        cost_rr = torch.where(positive_rr, F.relu(distance_rr - chosen_rr + self.margin), 0)
        return cost_rr.sum() / positive_rr.sum().clamp(min=1)


def _without_diagonal(same_rr: Tensor) -> Tensor:
    return same_rr & ~torch.eye(len(same_rr), dtype=torch.bool, device=same_rr.device)


def _hardest_gap(distance_rr: Tensor, same_rr: Tensor) -> Tensor:
    """Distance of each anchor to its farthest positive (0 without one) minus that to its closest negative, [r]."""
    farthest_r = torch.where(_without_diagonal(same_rr), distance_rr, 0).max(dim=1).values
    closest_r = distance_rr.masked_fill(same_rr, torch.inf).min(dim=1).values
    return farthest_r - closest_r
