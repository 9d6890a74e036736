"""A regularizer: it needs no labels, and is added to a loss that learns a task.

Tensor names: r = rows, d = dim.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from stfit.lazy import Tensor, torch
from stfit.losses.base import Accepts, Columns, LossBase, require_columns
from stfit.similarity import normalize


class GlobalOrthogonalRegularization(LossBase):
    """Spreads the texts of each column over all directions, so that embeddings can be cut or quantized with less loss.

    Of the similarities of all pairs of texts in a column: the squared mean, plus what the mean of the squares exceeds
    that of random directions, 1 / dim (Zhang et al., 2017, https://arxiv.org/abs/1708.06320; EmbeddingGemma,
    https://arxiv.org/abs/2509.20354, with `mean_weight: 0` and `aggregation: sum`). Add it to another loss, as a list.
    """

    aliases = ("GlobalOrthogonalRegularizationLoss",)
    fits = (
        Accepts("labeled_pair", "none"),
        Accepts("positive_pair", "none"),
        Accepts("labeled_text", "none"),
        Accepts("triplet", "none"),
        Accepts("text", "none"),
    )
    min_batch_size = 2
    takes_any_columns = True

    type: Literal["global_orthogonal_regularization"] = "global_orthogonal_regularization"
    similarity: Literal["cosine", "dot"] = "cosine"
    """cosine or dot (dot product)."""
    mean_weight: float = Field(1.0, ge=0)
    """Weight of the squared mean."""
    second_moment_weight: float = Field(1.0, ge=0)
    """Weight of the mean of the squares."""
    aggregation: Literal["mean", "sum"] = "mean"
    """mean or sum of the columns."""

    @model_validator(mode="after")
    def _require_moment(self) -> Self:
        if not self.mean_weight and not self.second_moment_weight:
            raise ValueError("`mean_weight` and `second_moment_weight` are both 0: raise one")
        return self

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of any columns [rows, dim]. A negative of exact zeros is missing."""
        names = list(columns)
        losses = []
        for name, vector_rd in zip(names, require_columns(self.tag(), columns, label, *names), strict=True):
            present_rd = vector_rd[(vector_rd != 0).any(dim=1)] if name.startswith("negative") else vector_rd
            losses.append(self._of_column(present_rd))
        return torch.stack(losses).sum() / (len(losses) if self.aggregation == "mean" else 1)

    def _of_column(self, vector_rd: Tensor) -> Tensor:
        vector_rd = normalize(vector_rd) if self.similarity == "cosine" else vector_rd
        is_itself_rr = torch.eye(len(vector_rd), dtype=torch.bool, device=vector_rd.device)
        similarity_rr = (vector_rd @ vector_rd.T).masked_fill(is_itself_rr, 0)
        pairs = max(1, len(vector_rd) * (len(vector_rd) - 1))
        mean = similarity_rr.sum() / pairs
        second_moment = similarity_rr.square().sum() / pairs
        excess = (second_moment - 1 / vector_rd.shape[1]).relu()
        return self.mean_weight * mean.square() + self.second_moment_weight * excess
