"""Approximate nearest neighbors by an HNSW graph (https://arxiv.org/abs/1603.09320), and how many of them are right.

Tensor names: q = queries, k = neighbors, d = embedding dim.
"""

import logging
from typing import Any

import numpy as np

from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.errors import RecipeError
from stfit.neighbors.exact import nearest
from stfit.neighbors.top_pairs import TopPairs
from stfit.progress import track

log = logging.getLogger("stfit")

BLOCK = 16_384
LINKS = 32
"""Of a row to others."""
NEIGHBORS = 16
"""Of each row, among which the most similar pairs are looked for."""
LOOKED_AT = 64
"""Rows that a search follows at once: more take longer, and find more."""
SAMPLE = 500
"""Rows whose nearest neighbors are computed exactly, to tell how many of them a search finds."""

MANY_PRODUCTS = 3e12
"""Of two numbers: about a minute on two cores."""


def offer_index(comparisons: int, dim: int) -> None:
    """Say that there is a faster way, where it matters."""
    if comparisons * dim > MANY_PRODUCTS:
        log.info("%.3g comparisons take a while: --approximate takes less, and tells how much it finds", comparisons)


def build_index(rows: EmbeddingMatrix) -> Any:
    """Of the rows at length 1, in memory. Raises RecipeError without faiss."""
    try:
        import faiss
    except ImportError as error:
        raise RecipeError("--approximate needs faiss: install the extra `faiss`") from error
    index = faiss.IndexHNSWFlat(rows.dim, LINKS, faiss.METRIC_INNER_PRODUCT)
    starts = range(0, len(rows), BLOCK)
    for start in track(starts, f"linking {len(rows):,} embeddings"):
        index.add(rows.take_unit(np.arange(start, min(start + BLOCK, len(rows)))))
    return index


def approximately_nearest(index: Any, query_qd: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Like `nearest` by the dot product. What was not found has the similarity -inf, and the place of some row."""
    index.hnsw.efSearch = max(LOOKED_AT, k)
    score_qk, index_qk = index.search(np.ascontiguousarray(query_qd), min(k, index.ntotal))
    is_found_qk = index_qk >= 0
    return np.where(is_found_qk, score_qk, -np.inf), np.where(is_found_qk, index_qk, 0)


def measure_recall(index: Any, rows: EmbeddingMatrix) -> float:
    """Of the nearest neighbors of a sample of rows, the share that the index finds; equally near ones count as found.

    The nearest one of a row is the row itself, so it is the second. A row alone has none.
    """
    if len(rows) < 2:
        return 1.0
    sample = np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64))
    query_qd = rows.take_unit(sample)
    exact_q = nearest(query_qd, rows.unit_blocks(BLOCK), 2, "dot")[0][:, -1]
    found_q = approximately_nearest(index, query_qd, NEIGHBORS)[0][:, 1]
    return float((found_q >= exact_q - 1e-5).mean())


def top_pairs_approximately(index: Any, rows: EmbeddingMatrix, k: int) -> TopPairs:
    """Like those of all pairs, and may miss some."""
    scores, pairs = [], []
    starts = range(0, len(rows), BLOCK)
    for start in track(starts, f"searching the neighbors of {len(rows):,} embeddings"):
        own = np.arange(start, min(start + BLOCK, len(rows)))
        score_nk, other_nk = approximately_nearest(index, rows.take_unit(own), NEIGHBORS)
        own_nk = np.broadcast_to(own[:, None], other_nk.shape)
        is_pair = (other_nk != own_nk) & (score_nk > -np.inf)
        scores.append(score_nk[is_pair])
        pairs.append(np.sort(np.stack([own_nk[is_pair], other_nk[is_pair]], axis=1), axis=1))
    pair_m, first = np.unique(np.concatenate(pairs), axis=0, return_index=True)
    score_m = np.concatenate(scores)[first]
    order = np.argsort(-score_m, kind="stable")[:k]
    return TopPairs(score_m[order], pair_m[order])
