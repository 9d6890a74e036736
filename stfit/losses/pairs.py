"""Losses on labelled pairs: sentence1, sentence2, and a class, a 0/1 label or a similarity.

Tensor names: r = rows, d = dim. The scalar of each formula is in its class; labels of `score` losses are in 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stfit.lazy import lazy
from stfit.losses.base import Accepts, Columns, Dims, DimWeights, Sampler, require_columns
from stfit.similarity import normalize, pairwise_cosine, pairwise_distance
from stfit.spec import Spec

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from stfit.losses.softmax_classifier import SoftmaxHead
else:
    torch = lazy("torch")
    F = lazy("torch.nn.functional")

Distance = Literal["cosine", "euclidean", "manhattan"]

OFFSET = 1e-6
"""Added to coordinate differences by both contrastive losses, as torch.nn.functional.pairwise_distance does."""


class Contrastive(Spec):
    """Pulls pairs of label 1 together and pushes pairs of label 0 at least `margin` apart.

    Mean over the pairs of 1/2 (y d^2 + (1 - y) max(0, margin - d)^2), d = distance
    (Hadsell et al., 2006, https://doi.org/10.1109/CVPR.2006.100).
    """

    aliases: ClassVar[tuple[str, ...]] = ("ContrastiveLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_pair", "binary"),)
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 1

    type: Literal["contrastive"] = "contrastive"
    distance: Distance = "cosine"
    """cosine (1 - cosine similarity), euclidean or manhattan."""
    margin: float = Field(0.5, ge=0)
    """Pairs of label 0 that are farther apart than this cost nothing."""
    size_average: bool = True
    """Average over the pairs of a batch; false = their sum."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `sentence1` and `sentence2` [rows, dim] with `label` [rows]."""
        one_rd, other_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        distance_r = pairwise_distance(self.distance, one_rd, other_rd, OFFSET)
        label_r = label_r.to(distance_r.dtype)
        loss_r = (label_r * distance_r**2 + (1 - label_r) * F.relu(self.margin - distance_r) ** 2) / 2
        return loss_r.mean() if self.size_average else loss_r.sum()


class OnlineContrastive(Spec):
    """The contrastive loss on the hard pairs of each batch only, and their sum.

    Hard are the pairs of label 1 farther apart than the nearest pair of label 0, and the pairs of label 0 nearer than
    the farthest pair of label 1. In a batch of one kind, its mean distance takes the place of the other kind's.
    """

    aliases: ClassVar[tuple[str, ...]] = ("OnlineContrastiveLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_pair", "binary"),)
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 2

    type: Literal["online_contrastive"] = "online_contrastive"
    distance: Distance = "cosine"
    """cosine (1 - cosine similarity), euclidean or manhattan."""
    margin: float = Field(0.5, ge=0)
    """Pairs of label 0 that are farther apart than this cost nothing."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `sentence1` and `sentence2` [rows, dim] with `label` [rows]."""
        one_rd, other_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        distance_r = pairwise_distance(self.distance, one_rd, other_rd, OFFSET)
        positive_r, negative_r, seen_r = label_r == 1, label_r == 0, distance_r.detach()
        # Everything stays a tensor of all rows: picking rows by a mask would make a GPU wait for its size.
        farthest_positive = torch.where(positive_r, seen_r, -torch.inf).max()
        nearest_negative = torch.where(negative_r, seen_r, torch.inf).min()
        mean_positive = torch.where(positive_r, seen_r, torch.nan).nanmean()
        mean_negative = torch.where(negative_r, seen_r, torch.nan).nanmean()
        hard_positive_r = positive_r & (seen_r > torch.where(negative_r.any(), nearest_negative, mean_positive))
        hard_negative_r = negative_r & (seen_r < torch.where(positive_r.any(), farthest_positive, mean_negative))
        pull_r = torch.where(hard_positive_r, distance_r, 0) ** 2
        push_r = torch.where(hard_negative_r, F.relu(self.margin - distance_r), 0) ** 2
        return (pull_r + push_r).sum()


class Softmax(Spec):
    """Cross-entropy of a linear classifier over both embeddings of a pair and how they differ.

    The classifier's weights are trained and checkpointed, but are no part of the published model
    (Reimers and Gurevych, 2019, https://arxiv.org/abs/1908.10084).
    """

    aliases: ClassVar[tuple[str, ...]] = ("SoftmaxLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_pair", "class"),)
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 1

    type: Literal["softmax"] = "softmax"
    concatenate_embeddings: bool = True
    """Show the classifier both embeddings, u and v."""
    concatenate_difference: bool = True
    """Show it |u - v|."""
    concatenate_product: bool = False
    """Show it u * v."""

    @model_validator(mode="after")
    def something_to_see(self) -> Self:
        """A classifier of nothing can't learn."""
        if not (self.concatenate_embeddings or self.concatenate_difference or self.concatenate_product):
            raise ValueError("switch on at least one of the `concatenate_` fields: the classifier has no inputs")
        return self

    def build(self, embedding_dim: int, num_classes: int) -> SoftmaxHead:
        """The classifier as a loss with weights, drawn from torch's global generator."""
        from stfit.losses.softmax_classifier import SoftmaxHead

        return SoftmaxHead(self, embedding_dim, num_classes)


class CosineSimilarity(Spec):
    """The cosine similarity of a pair should equal its label: their mean squared (or absolute) difference."""

    aliases: ClassVar[tuple[str, ...]] = ("CosineSimilarityLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_pair", "score"),)
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 1

    type: Literal["cosine_similarity"] = "cosine_similarity"
    error: Literal["mse", "l1"] = "mse"
    """mse = squared differences, l1 = absolute ones."""
    transformation: Literal["identity", "sigmoid"] = "identity"
    """Applied to the cosine before it is compared with the label."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `sentence1` and `sentence2` [rows, dim] with `label` [rows]."""
        one_rd, other_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        cosine_r = pairwise_cosine(one_rd, other_rd)
        score_r = cosine_r.sigmoid() if self.transformation == "sigmoid" else cosine_r
        error_r = score_r - label_r.to(score_r.dtype)
        return error_r.square().mean() if self.error == "mse" else error_r.abs().mean()


class CoSENT(Spec):
    """A pair with a higher label should have a higher cosine similarity than every pair with a lower one.

    log(1 + sum over pairs i, j with y_i < y_j of exp(scale (cos_i - cos_j))) (https://kexue.fm/archives/8847). Only the
    order of the labels counts: a batch whose labels are all the same teaches nothing and costs 0.
    """

    aliases: ClassVar[tuple[str, ...]] = ("CoSENTLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_pair", "score"),)
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 2

    type: Literal["cosent"] = "cosent"
    scale: float = Field(20.0, gt=0)
    """Multiplies the cosine."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `sentence1` and `sentence2` [rows, dim] with `label` [rows]."""
        one_rd, other_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        return _compute_misorder(self.scale * pairwise_cosine(one_rd, other_rd), label_r)


class AnglE(Spec):
    """CoSENT with an angle in the complex plane in place of the cosine, whose gradient does not vanish near 1.

    A unit vector is read as complex numbers, its first half the real and its second half the imaginary parts; the
    similarity of a pair is |Re + Im| of their Hermitian product (Li and Li, 2023, https://arxiv.org/abs/2309.12871).
    """

    aliases: ClassVar[tuple[str, ...]] = ("AnglELoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("labeled_pair", "score"),)
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 2

    type: Literal["angle"] = "angle"
    scale: float = Field(20.0, gt=0)
    """Multiplies the similarity."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `sentence1` and `sentence2` [rows, dim] with `label` [rows]."""
        one_rd, other_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        one_real, one_imaginary = _halves(normalize(one_rd))
        other_real, other_imaginary = _halves(normalize(other_rd))
        real_r = (one_real * other_real + one_imaginary * other_imaginary).sum(dim=1)
        imaginary_r = (one_imaginary * other_real - one_real * other_imaginary).sum(dim=1)
        return _compute_misorder(self.scale * (real_r + imaginary_r).abs(), label_r)


def _halves(vectors_rd: Tensor) -> tuple[Tensor, Tensor]:
    """First and second half of the dimensions, an odd number of them padded with a zero."""
    first, second = F.pad(vectors_rd, (0, vectors_rd.shape[1] % 2)).chunk(2, dim=1)
    return first, second


def _compute_misorder(score_r: Tensor, label_r: Tensor) -> Tensor:
    """log(1 + sum of exp(score_i - score_j) over label_i < label_j), in O(r log r) time and O(r) memory.

    With the pairs in descending order of label, those of a higher label are a prefix: one cumulative log-sum-exp holds
    the inner sum of every i.
    """
    descending_r, order_r = label_r.to(score_r.dtype).sort(descending=True)
    score_r = score_r[order_r]
    higher_r = torch.searchsorted(-descending_r, -descending_r)  # pairs with a strictly higher label
    prefix = F.pad((-score_r).logcumsumexp(dim=0), (1, 0), value=-torch.inf)
    return F.pad(score_r + prefix[higher_r], (1, 0)).logsumexp(dim=0)
