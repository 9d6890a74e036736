"""Losses that learn from another model: what a teacher makes of a row's texts stands in the place of its label.

The teacher embeds every text once, before the first step. Its embeddings come with a batch as [rows, columns, dim], of
the columns in their order, so that a loss still sees embeddings only. Tensor names: r = rows, c = columns, n =
candidates (the columns but the anchor), d = dim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from stfit.errors import ModelError
from stfit.lazy import lazy
from stfit.losses.base import (
    Accepts,
    Columns,
    Dims,
    DimWeights,
    Sampler,
    TeacherRevision,
    presence_mask,
    require_columns,
    require_columns_with_teacher,
)
from stfit.paths import Location
from stfit.similarity import pairwise_cosine, pairwise_similarity
from stfit.spec import Spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

Similarity = Literal["dot", "cosine"]


class EmbedDistill(Spec):
    """The embedding of every text should be the teacher's: the mean of their distances.

    The teacher needs as many dimensions as the model; where it has others, a dense layer takes the model there:
    `model.layers: [{type: dense, out_features: 768, activation: identity}]` (Kim et al., 2023,
    https://arxiv.org/abs/2301.12005).
    """

    aliases: ClassVar[tuple[str, ...]] = ("EmbedDistillLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (
        Accepts("text", "teacher"),
        Accepts("positive_pair", "teacher"),
        Accepts("triplet", "teacher"),
    )
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 1
    same_dim: ClassVar[bool] = True
    """Whether teacher and model have to have as many dimensions."""

    type: Literal["embed_distill"] = "embed_distill"
    teacher: Location
    """Hub id or folder of the model to learn from; its embeddings are kept on disk for other runs."""
    revision: TeacherRevision = None
    distance: Literal["cosine", "l2", "mse"] = "cosine"
    """cosine (1 - cosine similarity), l2 (Euclidean), or mse (mean squared difference of their numbers)."""
    target: Literal["own", "anchor"] = "own"
    """Whose embedding by the teacher a text should have: its own, or that of the row's anchor. The latter teaches
    translations: an English anchor, and the same in another language as positive
    (Reimers and Gurevych, 2020, https://arxiv.org/abs/2004.09813)."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of any columns [rows, dim], against as much of the teacher's embeddings."""
        names = list(columns)
        texts, taught_rcd = require_columns_with_teacher(self, columns, label, names)
        text_rcd = torch.stack(texts, dim=1)
        taught_rcd = taught_rcd[:, :, : text_rcd.shape[2]].expand_as(text_rcd)
        there_rc = presence_mask(names, texts)
        return self.measure(text_rcd[there_rc], taught_rcd[there_rc]).mean()

    def measure(self, text_td: Tensor, taught_td: Tensor) -> Tensor:
        """Distance of each pair of rows."""
        if self.distance == "cosine":
            return 1 - pairwise_cosine(text_td, taught_td)
        difference_td = text_td - taught_td
        return difference_td.square().mean(dim=1) if self.distance == "mse" else difference_td.norm(dim=1)


class MSE(EmbedDistill):
    """The embedding of every text should be the teacher's: the mean squared difference of their numbers."""

    aliases: ClassVar[tuple[str, ...]] = ("MSELoss",)

    type: Literal["mse"] = "mse"  # type: ignore[assignment]
    distance: Literal["mse"] = "mse"
    """The mean squared difference."""


class TeacherCosine(Spec):
    """The cosine of an anchor with each of its texts should be the teacher's: their mean squared difference.

    That is cosine_similarity with the teacher's scores as labels. Teacher and model may have different dimensions.
    """

    aliases: ClassVar[tuple[str, ...]] = ()
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("positive_pair", "teacher"), Accepts("triplet", "teacher"))
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 1

    type: Literal["teacher_cosine"] = "teacher_cosine"
    teacher: Location
    """Hub id or folder of the model to learn from; its embeddings are kept on disk for other runs."""
    revision: TeacherRevision = None
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `anchor`, `positive`, `negative...` [rows, dim]; a negative of zeros is missing."""
        names = _candidates_of(columns)
        texts, taught_rcd = require_columns_with_teacher(self, columns, label, names)
        difference_rn = _scores("cosine", texts) - _scores("cosine", list(taught_rcd.unbind(1)))
        return difference_rn[presence_mask(names, texts)[:, 1:]].square().mean()


class MarginMSE(Spec):
    """An anchor should prefer its positive to a negative by as much as a teacher does: the mean squared difference.

    The margin is a label of the row (for one negative), or comes from the teacher's own embeddings (Hofstätter et al.,
    2021, https://arxiv.org/abs/2010.02666).
    """

    aliases: ClassVar[tuple[str, ...]] = ("MarginMSELoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("triplet", "number"), Accepts("triplet", "teacher"))
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 1

    type: Literal["margin_mse"] = "margin_mse"
    teacher: Location | None = None
    """Hub id or folder of a model whose margins are learnt. Default: the rows' label, score of the positive minus score
    of the negative, which `columns: {label: ...}` names."""
    revision: TeacherRevision = None
    similarity: Similarity = "dot"
    """What a score is: dot product or cosine, for model and teacher alike."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `anchor`, `positive`, `negative...` [rows, dim]; a negative of zeros is missing."""
        if self.teacher is None:
            *texts, margin_r = require_columns(self.tag(), columns, label, "anchor", "positive", "negative", "label")
            return (_margins(_scores(self.similarity, texts))[:, 0] - margin_r.to(texts[0].dtype)).square().mean()
        names = _candidates_of(columns)
        texts, taught_rcd = require_columns_with_teacher(self, columns, label, names)
        taught_rn = _scores(self.similarity, list(taught_rcd.unbind(1)))
        difference_rn = _margins(_scores(self.similarity, texts)) - _margins(taught_rn)
        return difference_rn[presence_mask(names, texts)[:, 2:]].square().mean()


class DistillKLDiv(Spec):
    """An anchor should choose among its positive and negatives as the teacher does: the divergence of two softmaxes.

    Mean over the rows of KL(softmax(teacher's scores / t) || softmax(scores / t)) t^2, t = temperature (Lin et al.,
    2020, https://arxiv.org/abs/2010.11386).
    """

    aliases: ClassVar[tuple[str, ...]] = ("DistillKLDivLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("triplet", "teacher"),)
    sampler: ClassVar[Sampler] = "shuffle"
    min_batch_size: ClassVar[int] = 1

    type: Literal["distill_kl_div"] = "distill_kl_div"
    teacher: Location
    """Hub id or folder of the model to learn from; its embeddings are kept on disk for other runs."""
    revision: TeacherRevision = None
    similarity: Similarity = "dot"
    """What a score is: dot product or cosine, for model and teacher alike."""
    temperature: float = Field(1.0, gt=0)
    """Divides the scores. Cosines differ by little: for those 0.05 is usual."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `anchor`, `positive`, `negative...` [rows, dim]; a negative of zeros is missing."""
        names = _candidates_of(columns)
        texts, taught_rcd = require_columns_with_teacher(self, columns, label, names)
        missing_rn = ~presence_mask(names, texts)[:, 1:]
        own_rn, taught_rn = (
            (_scores(self.similarity, each) / self.temperature).masked_fill(missing_rn, -torch.inf).log_softmax(dim=1)
            for each in (texts, list(taught_rcd.unbind(1)))
        )
        # Of a missing one both logarithms are -inf, and their difference is not a number.
        gap_rn = (taught_rn - own_rn).masked_fill(missing_rn, 0)
        return (taught_rn.exp() * gap_rn).sum(dim=1).mean() * self.temperature**2


def _candidates_of(columns: dict[str, Any]) -> list[str]:
    """`anchor`, `positive`, and the negatives that there are."""
    return ["anchor", "positive", *(name for name in columns if name.startswith("negative"))]


def _scores(similarity: str, texts: list[Tensor]) -> Tensor:
    """[rows, candidates]: the first of `texts`, each [rows, dim], with each of the others."""
    anchor_rd, *candidates = texts
    return torch.stack([pairwise_similarity(similarity, anchor_rd, text_rd) for text_rd in candidates], dim=1)


def _margins(score_rn: Tensor) -> Tensor:
    """[rows, negatives]: score of the positive, which is the first candidate, minus that of each negative."""
    return score_rn[:, :1] - score_rn[:, 1:]


def require_same_dim(loss: Any, own: int, of_teacher: int) -> None:
    """Raise ModelError where a loss compares embeddings of different sizes number by number."""
    if getattr(loss, "same_dim", False) and own != of_teacher:
        raise ModelError(
            f"the teacher's embeddings have {of_teacher} dimensions, and the model's {own}, but loss `{loss.type}` "
            f"compares them number by number: end `model.layers` with {{type: dense, out_features: {of_teacher}, "
            "activation: identity}, or use loss teacher_cosine or margin_mse"
        )
