"""Similarity and distance of embeddings: the one definition of length 1 and of the cosine, for every room.

A higher similarity means nearer, so a distance counts as its negative. Tensor names: r = rows, q = queries, c = rows of
a corpus, d = dim.
"""

from typing import Literal, get_args

import numpy as np

from stfit.lazy import Tensor, torch

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)

EPS = 1e-12
"""A vector with a smaller norm is treated as zero, which has no direction."""
ORDERS = {"manhattan": 1.0, "euclidean": 2.0}


def normalize(vectors_rd: Tensor) -> Tensor:
    """Scale each row to length 1. A zero row stays zero and gets zero gradient.

    torch.nn.functional.normalize divides by an epsilon instead, which multiplies the gradient of a zero row by 1e12:
    after gradient clipping, nothing is left for the other rows.
    """
    norm_r1 = torch.linalg.vector_norm(vectors_rd, dim=-1, keepdim=True)
    smallest = max(EPS, torch.finfo(norm_r1.dtype).tiny)  # EPS itself is 0 in float16
    return vectors_rd / norm_r1.masked_fill(norm_r1 < smallest, torch.inf)


def pairwise_cosine(first_rd: Tensor, second_rd: Tensor) -> Tensor:
    """Cosine of row i of one tensor with row i of the other, [r]; 0 if one of the rows is zero."""
    return (normalize(first_rd) * normalize(second_rd)).sum(dim=-1)


def agreement(first_rd: np.ndarray, second_rd: np.ndarray) -> np.ndarray:
    """Cosine of two embeddings of each text, [r]: 1 if both are zero, 0 if one is."""
    first, second = torch.from_numpy(first_rd), torch.from_numpy(second_rd)
    both_zero = ~first.any(dim=1) & ~second.any(dim=1)
    return pairwise_cosine(first, second).masked_fill(both_zero, 1.0).numpy()


def pairwise_distance(distance: str, first_rd: Tensor, second_rd: Tensor, offset: float = 0.0) -> Tensor:
    """Distance of row i to row i, [r]; `offset` on the differences (not for cosine) gives identical rows a gradient."""
    if distance == "cosine":
        return 1 - pairwise_cosine(first_rd, second_rd)
    return torch.linalg.vector_norm(first_rd - second_rd + offset, ord=ORDERS[distance], dim=-1)


def pairwise_similarity(similarity: str, first_rd: Tensor, second_rd: Tensor) -> Tensor:
    if similarity == "cosine":
        return pairwise_cosine(first_rd, second_rd)
    if similarity == "dot":
        return (first_rd * second_rd).sum(dim=-1)
    return -pairwise_distance(similarity, first_rd, second_rd)


def similarity_matrix(similarity: str, query_qd: Tensor, corpus_cd: Tensor) -> Tensor:
    """Similarity of every query to every row of a corpus, [q, c]."""
    if similarity == "cosine":
        return normalize(query_qd) @ normalize(corpus_cd).T
    if similarity == "dot":
        return query_qd @ corpus_cd.T
    return -torch.cdist(query_qd, corpus_cd, p=ORDERS[similarity])


def distance_matrix(distance: str, vectors_rd: Tensor) -> Tensor:
    """Distance (cosine, euclidean or squared_euclidean) of every row to every row, [r, r], with finite gradients."""
    if distance == "cosine":
        unit_rd = normalize(vectors_rd)
        return 1 - unit_rd @ unit_rd.T
    product_rr = vectors_rd @ vectors_rd.T
    norm_r = product_rr.diagonal()  # from the same product, so that a row's distance to itself is exactly 0
    square_rr = (norm_r - 2 * product_rr + norm_r[:, None]).clamp(min=0)
    if distance == "squared_euclidean":
        return square_rr
    zero_rr = square_rr == 0  # the gradient of a square root is infinite at 0
    return square_rr.masked_fill(zero_rr, 1).sqrt().masked_fill(zero_rr, 0)
