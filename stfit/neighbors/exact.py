"""Exact nearest neighbors in a corpus, in bounded memory.

Tensor names: q = queries, c = rows of a chunk of the corpus, k = neighbors, d = embedding dim.
"""

from collections.abc import Iterable

import numpy as np

from stfit.lazy import Tensor, torch
from stfit.similarity import similarity_matrix

CHUNK = 50_000
"""Maximum number of corpus rows to embed and compare at once."""
MAX_SCORES = 2**24
GROUP = 64
"""Scores of one query that are first compared with each other."""


def nearest(
    query_qd: np.ndarray, chunks: Iterable[np.ndarray], k: int, similarity: str, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Similarities [q, k] and positions [q, k] of the most similar corpus rows, in descending order.

    `chunks` hold the corpus in order, each [c, d]. Of equally similar rows, the earlier one comes first. A corpus of
    fewer than k rows gives one column per row.
    """
    queries = torch.from_numpy(np.ascontiguousarray(query_qd)).to(device)
    score_qk = np.empty((len(queries), 0), dtype=np.float32)
    index_qk = np.empty((len(queries), 0), dtype=np.int64)
    start = 0
    for chunk_cd in chunks:
        corpus = torch.from_numpy(np.ascontiguousarray(chunk_cd)).to(device)
        block = max(1, MAX_SCORES // len(corpus))
        top = [_top_k(similarity_matrix(similarity, part_qd, corpus), k) for part_qd in queries.split(block)]
        found = np.concatenate([score for score, _ in top]), np.concatenate([index for _, index in top]) + start
        score_qk, index_qk = best_of_both((score_qk, index_qk), found, k)
        start += len(corpus)
    return score_qk, index_qk


def best_of_both(
    known: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of scores and their positions, each [q, any], the k highest; of equal scores, the lower position first."""
    score_qn, index_qn = (np.concatenate(both, axis=1) for both in zip(known, found, strict=True))
    order_qk = np.lexsort((index_qn, -score_qn))[:, :k]
    return np.take_along_axis(score_qn, order_qk, axis=1), np.take_along_axis(index_qn, order_qk, axis=1)


def _top_k(score_qc: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest scores of each row and their positions; of equal scores at the border, the earlier ones.

    A score that is not a number is the lowest, -inf. Only the columns of the k best of many groups are sorted, which
    hold the k best scores: one look at all scores is enough, where sorting them would take longer than computing them.
    """
    rows, columns = score_qc.shape
    groups = columns // GROUP
    if groups < 2 * k:
        return _sort_top_k(score_qc, k)
    grouped_qng = score_qc[:, : groups * GROUP].view(rows, GROUP, groups)  # column c is in group c % groups
    best_qg = grouped_qng.amax(dim=1)
    best_qk, group_qk = best_qg.topk(k, dim=1)
    is_tied_q = (best_qg >= best_qk[:, -1:]).sum(dim=1) > k
    if best_qg.isnan().any() or is_tied_q.any():
        return _sort_top_k(score_qc, k)
    device = score_qc.device
    first_qn = torch.arange(0, groups * GROUP, groups, device=device)[None, :, None]
    first_qn = first_qn + group_qk.sort(dim=1).values[:, None]
    rest_n = torch.arange(groups * GROUP, columns, device=device)
    place_qn = torch.cat([first_qn.view(rows, -1), rest_n.expand(rows, -1)], dim=1)
    score_qk, index_qk = _sort_top_k(score_qc.gather(1, place_qn), k)
    return score_qk, np.take_along_axis(place_qn.cpu().numpy(), index_qk, axis=1)


def _sort_top_k(score_qc: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    k = min(k, score_qc.shape[1])
    score_qc = score_qc.masked_fill(score_qc.isnan(), -torch.inf)  # topk takes NaN for the highest
    score_qk, index_qk = score_qc.topk(k, dim=1)
    at_border_q = ((score_qc >= score_qk[:, -1:]).sum(dim=1) > k).nonzero()[:, 0]  # topk breaks these ties arbitrarily
    if len(at_border_q):
        sorted_qc, order_qc = score_qc[at_border_q].sort(dim=1, descending=True, stable=True)
        score_qk[at_border_q], index_qk[at_border_q] = sorted_qc[:, :k], order_qc[:, :k]
    return score_qk.cpu().numpy(), index_qk.cpu().numpy()
