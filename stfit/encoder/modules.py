"""Layers after pooling that torch does not have as a class."""

from torch import Tensor, nn
from torch.nn import functional


class UnitLength(nn.Module):
    """Scales every embedding to length 1; a zero vector stays zero."""

    def forward(self, embedding_rd: Tensor) -> Tensor:
        """[rows, dim] -> [rows, dim]."""
        return functional.normalize(embedding_rd, dim=-1)
