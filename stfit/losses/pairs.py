"""Losses on labeled pairs: sentence1, sentence2, and a label that is a class, 0 or 1, or a similarity.

Tensor names: r = rows, d = dim. Labels of the kind `score` are in 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stfit.errors import DataError
from stfit.lazy import F, Tensor, torch
from stfit.losses.base import Accepts, BuiltLoss, Columns, LossBase, require_columns
from stfit.similarity import normalize, pairwise_cosine, pairwise_distance

Distance = Literal["cosine", "euclidean", "manhattan"]
OFFSET = 1e-6
"""Both contrastive losses add it to coordinate differences, as torch.nn.functional.pairwise_distance does."""


class Contrastive(LossBase):
    """Pulls pairs with label 1 together and pushes pairs with label 0 at least `margin` apart.

    Mean over the pairs of 1/2 (y d^2 + (1 - y) max(0, margin - d)^2), d = distance
    (Hadsell et al., 2006, https://doi.org/10.1109/CVPR.2006.100).
    """

    aliases = ("ContrastiveLoss",)
    fits = (Accepts("labeled_pair", "binary"),)

    type: Literal["contrastive"] = "contrastive"
    distance: Distance = "cosine"
    """cosine (1 - cosine similarity), euclidean or manhattan."""
    margin: float = Field(0.5, ge=0)
    """Distance beyond which a pair with label 0 adds nothing to the loss."""
    size_average: bool = True
    """true averages over the pairs of a batch; false sums them."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        first_rd, second_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        distance_r = pairwise_distance(self.distance, first_rd, second_rd, OFFSET)
        label_r = label_r.to(distance_r.dtype)
        loss_r = (label_r * distance_r**2 + (1 - label_r) * F.relu(self.margin - distance_r) ** 2) / 2
        return loss_r.mean() if self.size_average else loss_r.sum()


class OnlineContrastive(LossBase):
    """The contrastive loss, summed only over the hard pairs of each batch.

    Hard pairs are those with label 1 farther apart than the closest pair with label 0, and those with label 0 closer
    than the farthest pair with label 1. If all labels of a batch are equal, the threshold is the mean distance.
    """

    aliases = ("OnlineContrastiveLoss",)
    fits = (Accepts("labeled_pair", "binary"),)
    min_batch_size = 2

    type: Literal["online_contrastive"] = "online_contrastive"
    distance: Distance = "cosine"
    """cosine (1 - cosine similarity), euclidean or manhattan."""
    margin: float = Field(0.5, ge=0)
    """Distance beyond which a pair with label 0 adds nothing to the loss."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        first_rd, second_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        distance_r = pairwise_distance(self.distance, first_rd, second_rd, OFFSET)
        positive_r, negative_r, fixed_r = label_r == 1, label_r == 0, distance_r.detach()
        # All tensors keep all rows: selecting rows by a mask would make a GPU wait for the size of the result.
        farthest_positive = torch.where(positive_r, fixed_r, -torch.inf).max()
        nearest_negative = torch.where(negative_r, fixed_r, torch.inf).min()
        mean_positive = torch.where(positive_r, fixed_r, torch.nan).nanmean()
        mean_negative = torch.where(negative_r, fixed_r, torch.nan).nanmean()
        hard_positive_r = positive_r & (fixed_r > torch.where(negative_r.any(), nearest_negative, mean_positive))
        hard_negative_r = negative_r & (fixed_r < torch.where(positive_r.any(), farthest_positive, mean_negative))
        pull_r = torch.where(hard_positive_r, distance_r, 0) ** 2
        push_r = torch.where(hard_negative_r, F.relu(self.margin - distance_r), 0) ** 2
        return (pull_r + push_r).sum()


class Softmax(LossBase):
    """Cross-entropy of a linear classifier over both embeddings of a pair and their difference.

    The classifier is saved beside the model, where `label_accuracy` finds it; embeddings need only the model
    (Reimers and Gurevych, 2019, https://arxiv.org/abs/1908.10084).
    """

    aliases = ("SoftmaxLoss",)
    fits = (Accepts("labeled_pair", "class"),)
    if not TYPE_CHECKING:  # the classifier reads whole embeddings: these are no fields here
        matryoshka_dims: ClassVar[None] = None
        matryoshka_weights: ClassVar[None] = None
        n_dims_per_step: ClassVar[None] = None
        precisions: ClassVar[None] = None

    type: Literal["softmax"] = "softmax"
    concatenate_embeddings: bool = True
    """Include both embeddings, u and v, in the classifier's input."""
    concatenate_difference: bool = True
    """Include |u - v|."""
    concatenate_product: bool = False
    """Include u * v."""

    @model_validator(mode="after")
    def _has_inputs(self) -> Self:
        if not (self.concatenate_embeddings or self.concatenate_difference or self.concatenate_product):
            raise ValueError("the classifier has no inputs: set at least one of the `concatenate_` fields to true")
        return self

    def build(self, embedding_dim: int, num_classes: int | None) -> BuiltLoss:
        """The classifier, its weights drawn from torch's global generator. Raises DataError below two classes."""
        if num_classes is None or num_classes < 2:
            raise DataError(
                f"loss `softmax` needs at least two classes, but the data has {num_classes or 'no'} class labels"
            )
        from stfit.losses.softmax_classifier import SoftmaxHead

        return SoftmaxHead(
            embedding_dim,
            num_classes,
            embeddings=self.concatenate_embeddings,
            difference=self.concatenate_difference,
            product=self.concatenate_product,
        )


class CosineSimilarity(LossBase):
    """Trains the cosine similarity of a pair to equal its label: mean squared (or absolute) difference."""

    aliases = ("CosineSimilarityLoss",)
    fits = (Accepts("labeled_pair", "score"),)

    type: Literal["cosine_similarity"] = "cosine_similarity"
    error: Literal["mse", "l1"] = "mse"
    """mse (squared differences) or l1 (absolute differences)."""
    transformation: Literal["identity", "sigmoid"] = "identity"
    """Function applied to the cosine before it is compared with the label."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        first_rd, second_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        cosine_r = pairwise_cosine(first_rd, second_rd)
        score_r = cosine_r.sigmoid() if self.transformation == "sigmoid" else cosine_r
        error_r = score_r - label_r.to(score_r.dtype)
        return error_r.square().mean() if self.error == "mse" else error_r.abs().mean()


class CoSENT(LossBase):
    """Trains pairs with a higher label to have a higher cosine similarity than every pair with a lower label.

    log(1 + sum over pairs i, j with y_i < y_j of exp(scale (cos_i - cos_j))) (https://kexue.fm/archives/8847). Only the
    order of the labels matters: a batch whose labels are all equal has a loss of 0.
    """

    aliases = ("CoSENTLoss",)
    fits = (Accepts("labeled_pair", "score"),)
    min_batch_size = 2

    type: Literal["cosent"] = "cosent"
    scale: float = Field(20.0, gt=0)
    """Multiplies the cosine (1 / temperature)."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        first_rd, second_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        return _compute_cosent(self.scale * pairwise_cosine(first_rd, second_rd), label_r)


class AnglE(LossBase):
    """CoSENT on an angle in the complex plane instead of the cosine, whose gradient vanishes near 1.

    A unit vector is read as complex numbers: its first half holds the real parts, its second half the imaginary parts.
    The similarity of a pair is |Re + Im| of their Hermitian product (Li and Li, 2023,
    https://arxiv.org/abs/2309.12871).
    """

    aliases = ("AnglELoss",)
    fits = (Accepts("labeled_pair", "score"),)
    min_batch_size = 2

    type: Literal["angle"] = "angle"
    scale: float = Field(20.0, gt=0)
    """Multiplies the similarity (1 / temperature)."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        first_rd, second_rd, label_r = require_columns(self.tag(), columns, label, "sentence1", "sentence2", "label")
        first_real, first_imaginary = _halves(normalize(first_rd))
        second_real, second_imaginary = _halves(normalize(second_rd))
        real_r = (first_real * second_real + first_imaginary * second_imaginary).sum(dim=1)
        imaginary_r = (first_imaginary * second_real - first_real * second_imaginary).sum(dim=1)
        return _compute_cosent(self.scale * (real_r + imaginary_r).abs(), label_r)


def _halves(vectors_rd: Tensor) -> tuple[Tensor, Tensor]:
    """First and second half of the dimensions, padded with a zero to an even number."""
    first, second = F.pad(vectors_rd, (0, vectors_rd.shape[1] % 2)).chunk(2, dim=1)
    return first, second


def _compute_cosent(score_r: Tensor, label_r: Tensor) -> Tensor:
    """log(1 + sum of exp(score_i - score_j) over label_i < label_j), in O(r log r) time and O(r) memory.

    With the pairs sorted by descending label, those with a higher label than pair i are a prefix, so one cumulative
    log-sum-exp holds the inner sum of every i.
    """
    descending_r, order_r = label_r.to(score_r.dtype).sort(descending=True)
    score_r = score_r[order_r]
    higher_r = torch.searchsorted(-descending_r, -descending_r)  # number of pairs with a strictly higher label
    prefix = F.pad((-score_r).logcumsumexp(dim=0), (1, 0), value=-torch.inf)
    return F.pad(score_r + prefix[higher_r], (1, 0)).logsumexp(dim=0)
