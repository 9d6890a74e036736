"""The most similar pairs among many embeddings of length 1.

Tensor names: n = rows, k = pairs, d = embedding dim.
"""

import numpy as np
import torch

from stfit.errors import RecipeError
from stfit.progress import track

BLOCK = 2048

NEIGHBORS = 16


def closest_pairs(row_nd: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Similarities [k] and row numbers [k, 2] (i < j) of the most similar pairs of rows, in descending order."""
    blocks = torch.from_numpy(row_nd).split(BLOCK)
    best = torch.empty(0)
    pairs = torch.empty(0, 2, dtype=torch.int64)
    for number, rows in enumerate(track(blocks, f"comparing {len(row_nd):,} embeddings with each other")):
        for other_number, others in enumerate(blocks[number:], start=number):
            score_nn = rows @ others.T
            if number == other_number:
                score_nn[torch.ones_like(score_nn, dtype=torch.bool).tril()] = -torch.inf
            if len(best) == k and score_nn.max() <= best[-1]:
                continue
            score_k, flat_k = score_nn.view(-1).topk(min(k, score_nn.numel()))
            first_k, second_k = flat_k // len(others) + number * BLOCK, flat_k % len(others) + other_number * BLOCK
            real = score_k > -torch.inf
            best, order = torch.cat([best, score_k[real]]).sort(descending=True, stable=True)
            best, pairs = best[:k], torch.cat([pairs, torch.stack([first_k, second_k], dim=1)[real]])[order[:k]]
    return best.numpy(), pairs.numpy()


def closest_pairs_approximately(row_nd: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Like `closest_pairs`, but by an HNSW graph (https://arxiv.org/abs/1603.09320), which may miss pairs."""
    try:
        import faiss
    except ImportError as error:
        raise RecipeError("--approximate needs faiss: install the extra `faiss`") from error
    index = faiss.IndexHNSWFlat(row_nd.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.add(row_nd)
    score_nk, other_nk = index.search(row_nd, NEIGHBORS)
    row_nk = np.broadcast_to(np.arange(len(row_nd))[:, None], other_nk.shape)
    distinct = (other_nk >= 0) & (other_nk != row_nk)
    pairs = np.sort(np.stack([row_nk[distinct], other_nk[distinct]], axis=1), axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    score = score_nk[distinct][first]
    order = np.argsort(-score, kind="stable")[:k]
    return score[order], pairs[order]
