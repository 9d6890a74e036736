"""Losses that learn from another model, whose embeddings replace the label (see `TeacherLoss`).

Tensor names: r = rows, c = columns, t = texts that exist, n = candidates (the columns except the anchor), d = dim.
"""

from typing import Literal

from pydantic import Field

from stfit.lazy import Tensor, torch
from stfit.losses.base import Accepts, Columns, CrossEncoderTeacher, TeacherLoss, require_columns
from stfit.paths import Location
from stfit.similarity import pairwise_cosine, pairwise_similarity


class EmbedDistill(TeacherLoss):
    """Trains the embedding of every text to equal the teacher's: mean distance between the two.

    Model and teacher need the same embedding size. If the sizes differ, end the model with a dense layer:
    `model.layers: [{type: dense, out_features: 768, activation: identity}]` (Kim et al., 2023,
    https://arxiv.org/abs/2301.12005).
    """

    aliases = ("EmbedDistillLoss",)
    fits = (
        Accepts("text", "embedding"),
        Accepts("positive_pair", "embedding"),
        Accepts("triplet", "embedding"),
        Accepts("text", "teacher"),
        Accepts("positive_pair", "teacher"),
        Accepts("triplet", "teacher"),
    )
    same_dim = True
    takes_any_columns = True

    type: Literal["embed_distill"] = "embed_distill"
    teacher: Location | None = None
    """Hub id or folder of the model to learn from. Its embeddings are cached on disk and reused by other runs. null:
    they are in the data, as `columns: {embedding: ...}`: a list of numbers, toward which all texts of a row are
    trained."""
    distance: Literal["cosine", "l2", "mse"] = "cosine"
    """cosine (1 - cosine similarity), l2 (Euclidean), or mse (mean squared difference of coordinates)."""
    target: Literal["own", "anchor"] = "own"
    """Teacher embedding that each text is trained toward: `own` (that of the text itself) or `anchor` (that of the
    row's anchor). `anchor` makes a model multilingual: English anchors, with their translations as positives
    (Reimers and Gurevych, 2020, https://arxiv.org/abs/2004.09813)."""

    def taught_roles(self, roles: list[str]) -> list[str]:
        return roles[:1] if self.target == "anchor" or self.teacher is None else roles

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of any columns [rows, dim]; of the teacher's embeddings, the first `dim` numbers count."""
        texts, teacher_rcd, present_rc = self.require_columns_with_teacher(columns, label, list(columns))
        text_rcd = torch.stack(texts, dim=1)
        teacher_rcd = teacher_rcd[:, :, : text_rcd.shape[2]].expand_as(text_rcd)
        return self._compute_distance(text_rcd[present_rc], teacher_rcd[present_rc]).mean()

    def _compute_distance(self, text_td: Tensor, teacher_td: Tensor) -> Tensor:
        if self.distance == "cosine":
            return 1 - pairwise_cosine(text_td, teacher_td)
        difference_td = text_td - teacher_td
        return difference_td.square().mean(dim=1) if self.distance == "mse" else difference_td.norm(dim=1)


class MSE(EmbedDistill):
    """Trains the embedding of every text to equal the teacher's: mean squared difference of coordinates."""

    aliases = ("MSELoss",)

    type: Literal["mse"] = "mse"  # type: ignore[assignment]
    distance: Literal["mse"] = "mse"
    """mse (mean squared difference of coordinates)."""


class TeacherCosine(TeacherLoss):
    """Trains the cosine of an anchor with each of its texts to equal the teacher's: mean squared difference.

    This is cosine_similarity with the teacher's scores as labels. Model and teacher may have different embedding sizes.
    """

    fits = (Accepts("positive_pair", "teacher"), Accepts("triplet", "teacher"))

    type: Literal["teacher_cosine"] = "teacher_cosine"
    teacher: Location
    """Hub id or folder of the model to learn from. Its embeddings are cached on disk and reused by other runs."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        texts, teacher_rcd, present_rc = self.require_columns_with_teacher(columns, label)
        difference_rn = _scores("cosine", texts) - _scores("cosine", list(teacher_rcd.unbind(1)))
        return difference_rn[present_rc[:, 1:]].square().mean()


class MarginMSE(TeacherLoss):
    """Trains the margin between positive and negative to equal a teacher's: mean squared difference.

    The margin is the row's label (with one negative), comes from scores in the data, or from the teacher's own
    embeddings (Hofstätter et al., 2021, https://arxiv.org/abs/2010.02666).
    """

    aliases = ("MarginMSELoss",)
    fits = (Accepts("triplet", "number"), Accepts("triplet", "scores"), Accepts("triplet", "teacher"))

    type: Literal["margin_mse"] = "margin_mse"
    teacher: Location | CrossEncoderTeacher | None = None
    """Hub id or folder of a model whose margins are learned: those of its embeddings, or of a reranker's scores
    (`teacher: {cross_encoder: ID}`). null: they are in the data. `columns: {scores: ...}` is a
    list of numbers, the positive's score first, then one for each negative; `columns: {label: ...}` the score of the
    positive minus that of the only negative."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Score of a pair: dot product or cosine, for model and teacher alike."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        if self.teacher is None and label is not None and label.ndim == 1:
            *texts, margin_r = require_columns(self.tag(), columns, label, "anchor", "positive", "negative", "label")
            return (_margins(_scores(self.similarity, texts))[:, 0] - margin_r.to(texts[0].dtype)).square().mean()
        score_rn, taught_rn, present_rn = _taught_scores(self, columns, label)
        return (_margins(score_rn) - _margins(taught_rn))[present_rn[:, 1:]].square().mean()


class DistillKLDiv(TeacherLoss):
    """Trains the scores of an anchor with its positive and negatives to the teacher's: divergence of two softmaxes.

    Mean over the rows of KL(softmax(teacher's scores / t') || softmax(scores / t)) t^2, t and t' = temperatures (Lin et
    al., 2020, https://arxiv.org/abs/2010.11386).
    """

    aliases = ("DistillKLDivLoss",)
    fits = (Accepts("triplet", "scores"), Accepts("triplet", "teacher"))

    type: Literal["distill_kl_div"] = "distill_kl_div"
    teacher: Location | CrossEncoderTeacher | None = None
    """Hub id or folder of a model whose scores are learned: those of its embeddings, or a reranker's
    (`teacher: {cross_encoder: ID}`). null: they are in the data, as `columns: {scores: ...}`: a
    list of numbers, the positive's score first, then one for each negative."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Score of a pair: dot product or cosine, for model and teacher alike."""
    temperature: float = Field(1.0, gt=0)
    """Divides the scores. Cosines lie close together: with `similarity: cosine`, 0.05 is usual."""
    student_temperature: float | None = Field(None, gt=0)
    """That of the model's own scores, if they lie in another range than the teacher's; null = `temperature`."""
    teacher_temperature: float | None = Field(None, gt=0)
    """That of the teacher's scores; null = `temperature`."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        score_rn, taught_rn, present_rn = _taught_scores(self, columns, label)
        own = self.student_temperature or self.temperature
        student_rn, teacher_rn = (
            scaled_rn.masked_fill(~present_rn, -torch.inf).log_softmax(dim=1)
            for scaled_rn in (score_rn / own, taught_rn / (self.teacher_temperature or self.temperature))
        )
        # Both logarithms are -inf for a missing candidate, and their difference would be NaN.
        gap_rn = (teacher_rn - student_rn).masked_fill(~present_rn, 0)
        return (teacher_rn.exp() * gap_rn).sum(dim=1).mean() * own**2


def _taught_scores(
    loss: MarginMSE | DistillKLDiv, columns: Columns, label: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the candidates of each anchor, those to learn, and which candidates there are, [rows, candidates]."""
    if not isinstance(loss.teacher, str):
        texts, taught_rn, present_rn = loss.require_columns_with_scores(columns, label)
        return _scores(loss.similarity, texts), taught_rn, present_rn
    texts, teacher_rcd, present_rc = loss.require_columns_with_teacher(columns, label)
    return (
        _scores(loss.similarity, texts),
        _scores(loss.similarity, list(teacher_rcd.unbind(1))),
        present_rc[:, 1:],
    )


def _scores(similarity: str, texts: list[Tensor]) -> Tensor:
    """Similarity of the first of `texts` (each [rows, dim]) to each of the others, [rows, candidates]."""
    anchor_rd, *candidates = texts
    return torch.stack([pairwise_similarity(similarity, anchor_rd, text_rd) for text_rd in candidates], dim=1)


def _margins(score_rn: Tensor) -> Tensor:
    """Score of the positive, which is the first candidate, minus that of each negative, [rows, negatives]."""
    return score_rn[:, :1] - score_rn[:, 1:]
