"""The most similar pairs among many embeddings, by cosine.

Rows are compared in blocks: each with itself and all later ones. Blocks share nothing, so that parts of them can be
compared apart. Tensor names: n = rows of a block, k = pairs, d = embedding dim.
"""

from typing import NamedTuple, Self

import numpy as np

from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.lazy import Tensor, torch

BLOCK = 2048


class TopPairs(NamedTuple):
    """In descending order of similarity."""

    score_k: np.ndarray
    pair_k: np.ndarray
    """Numbers of the two rows, the smaller one first, [k, 2]."""

    @classmethod
    def of_lists(cls, score_k: list[float], pair_k: list[list[int]]) -> Self:
        return cls(np.array(score_k, dtype=np.float32), np.array(pair_k, dtype=np.int64).reshape(-1, 2))


NO_PAIRS = TopPairs(np.empty(0, dtype=np.float32), np.empty((0, 2), dtype=np.int64))


def block_count(rows: EmbeddingMatrix) -> int:
    return -(-len(rows) // BLOCK)


def compare_block(rows: EmbeddingMatrix, number: int, best: TopPairs, k: int, device: str = "cpu") -> TopPairs:
    """The `k` best of `best` and of the pairs of this block with itself and with later ones."""
    own_nd = _block(rows, number, device)
    for other_number in range(number, block_count(rows)):
        other_nd = own_nd if other_number == number else _block(rows, other_number, device)
        score_nn = own_nd @ other_nd.T
        if number == other_number:
            score_nn[torch.ones_like(score_nn, dtype=torch.bool).tril()] = -torch.inf
        least = float(best.score_k[-1]) if len(best.score_k) == k else -np.inf
        if score_nn.max() <= least:
            continue
        flat_m = (score_nn.view(-1) > least).nonzero()[:, 0]
        score_m, order = score_nn.view(-1)[flat_m].topk(min(k, len(flat_m)))
        flat_m = flat_m[order]
        pair_m = torch.stack([flat_m // len(other_nd) + number * BLOCK, flat_m % len(other_nd) + other_number * BLOCK])
        best = best_of(best, TopPairs(score_m.cpu().numpy(), pair_m.T.cpu().numpy()), k)
    return best


def best_of(one: TopPairs, other: TopPairs, k: int) -> TopPairs:
    """Of equal similarities, those of the smaller rows."""
    score, pairs = np.concatenate([one.score_k, other.score_k]), np.concatenate([one.pair_k, other.pair_k])
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -score))[:k]
    return TopPairs(score[order], pairs[order])


def _block(rows: EmbeddingMatrix, number: int, device: str) -> Tensor:
    index = np.arange(number * BLOCK, min((number + 1) * BLOCK, len(rows)))
    return torch.from_numpy(rows.take_unit(index)).to(device)
