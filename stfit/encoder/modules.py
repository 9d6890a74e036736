"""Layers after pooling that torch does not have as a class."""

import torch
from torch import Tensor, nn

SHORTEST = 1e-12
"""A vector of a smaller norm is left as it is in torch.nn.functional.normalize, and here gets no gradient."""


class UnitLength(nn.Module):
    """Scales every embedding to length 1; a zero vector stays zero, and gets zero gradient.

    Divided by an epsilon, as usual, it would get 1e12 times the gradient of the others, and clipping would leave them
    nothing.
    """

    def forward(self, embedding_rd: Tensor) -> Tensor:
        """[rows, dim] -> [rows, dim]."""
        norm_r1 = torch.linalg.vector_norm(embedding_rd, dim=-1, keepdim=True)
        unit_rd: Tensor = embedding_rd / norm_r1.masked_fill(norm_r1 < SHORTEST, torch.inf)
        return unit_rd
