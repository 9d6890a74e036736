"""What the positions of two tokens add to the score of their attention, and its gradients.

Tensor names: h = heads, d = dim of a head, n = sequences of one length l.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stfit.encoder.kernels.blocks import Block


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The data type to add up many numbers of `dtype` in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


class Distances(NamedTuple):
    """Queries and keys that stand for the distances 1 - m to m - 1 of two tokens, both [h, 2 m - 1, d].

    He et al., 2021, "Disentangled attention", https://arxiv.org/abs/2006.03654.
    """

    queries: Tensor
    keys: Tensor

    def up_to(self, length: int) -> Distances:
        """A view of the distances within sequences of this length."""
        middle = self.queries.shape[1] // 2
        return Distances(*(table[:, middle - length + 1 : middle + length] for table in self))


def _by_distance(values: Tensor) -> Tensor:
    """A view [..., l, l] of [..., l, 2 l - 1]: place (i, j) is column j - i + l - 1 of row i."""
    *_, length, columns = values.shape
    shape = (*values.shape[:-1], length)
    return values.as_strided(shape, (*values.stride()[:-2], columns - 1, 1), length - 1)


def distance_scores(query: Tensor, key: Tensor, distances: Distances) -> Tensor:
    """Query i times the key of the distance i - j, and key j times its query: [n, h, l, l] of two [n, h, l, d]."""
    queries, keys = distances.up_to(query.shape[2])
    of_queries = _by_distance(query @ keys.flip(1).transpose(1, 2))
    of_keys = _by_distance(key @ queries.transpose(1, 2))
    return of_queries + of_keys.transpose(2, 3)


@dataclass
class Relations:
    """What the positions of two tokens add to their scores, and the gradients of it."""

    bias_hll: Tensor | None = None
    """Added after scaling, for the positions up to the length of a sequence."""
    distances: Distances | None = None
    """Their scores are added before scaling."""
    bias_grad_hll: Tensor | None = None
    distances_grad: Distances | None = None

    def add_scores(self, scores: Tensor, q: Tensor, k: Tensor, block: Block, scale: float) -> None:
        """Scale `scores` [n * h, l, l] in place, and add what belongs to them."""
        if self.distances:
            block.by_head(scores).add_(distance_scores(block.by_head(q), block.by_head(k), self.distances))
        scores.mul_(scale)
        if self.bias_hll is not None:
            block.by_head(scores).add_(self.bias_hll[:, : block.length, : block.length])
        if block.padding is not None:
            block.by_head(scores).add_(block.padding)

    def start_backward(self) -> None:
        if self.bias_hll is not None and self.bias_hll.requires_grad:
            self.bias_grad_hll = torch.zeros_like(self.bias_hll)
        if self.distances:
            self.distances_grad = Distances(
                *(torch.zeros_like(table, dtype=sum_dtype(table.dtype)) for table in self.distances)
            )

    def add_bias_grad(self, scores_grad: Tensor, block: Block) -> None:
        if self.bias_grad_hll is not None:
            self.bias_grad_hll[:, : block.length, : block.length] += block.by_head(scores_grad).sum(
                0, dtype=self.bias_grad_hll.dtype
            )

    def add_distance_grads(
        self, scores_grad: Tensor, block: Block, q: Tensor, k: Tensor, q_grad: Tensor, k_grad: Tensor
    ) -> None:
        """Add to the gradients of query and key, and of the distances. `scores_grad`: before scaling."""
        if self.distances is None or self.distances_grad is None:
            return
        queries, keys = self.distances.up_to(block.length)
        queries_grad, keys_grad = self.distances_grad.up_to(block.length)
        gradient = block.by_head(scores_grad)
        columns = gradient.new_zeros(*gradient.shape[:-1], 2 * block.length - 1)
        _by_distance(columns).copy_(gradient)
        block.by_head(q_grad).add_(columns @ keys.flip(1))
        keys_grad += (columns.transpose(2, 3) @ block.by_head(q)).sum(0).flip(1)
        _by_distance(columns).copy_(gradient.transpose(2, 3))
        block.by_head(k_grad).add_(columns @ queries)
        queries_grad += (columns.transpose(2, 3) @ block.by_head(k)).sum(0)
