"""How far apart embeddings are.

Pairwise: row i of one tensor with row i of the other. Tensor names: r = rows, d = dim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stfit.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

Distance = Literal["cosine", "euclidean", "manhattan"]
BatchDistance = Literal["euclidean", "squared_euclidean", "cosine"]

EPS = 1e-8
"""A vector of a smaller norm has no direction that floating point could tell."""


def normalize(vectors_rd: Tensor) -> Tensor:
    """Each row at length 1. A zero row stays zero and gets zero gradient.

    Dividing by a small epsilon instead would multiply the gradient of a zero row by 1 / epsilon, which after gradient
    clipping leaves nothing for the other rows.
    """
    norm_r1 = torch.linalg.vector_norm(vectors_rd, dim=1, keepdim=True)
    unit_rd: Tensor = vectors_rd / norm_r1.masked_fill(norm_r1 < EPS, torch.inf)
    return unit_rd


def pairwise_cosine(one_rd: Tensor, other_rd: Tensor) -> Tensor:
    """Cosine similarity of each pair of rows, [r]; 0 where one of them is zero."""
    return (normalize(one_rd) * normalize(other_rd)).sum(dim=1)


def pairwise_distance(distance: Distance, one_rd: Tensor, other_rd: Tensor, offset: float = 0.0) -> Tensor:
    """Distance of each pair of rows, [r]; cosine means 1 - cosine similarity.

    `offset` is added to every difference of coordinates (not for cosine): identical rows then have a gradient.
    """
    if distance == "cosine":
        return 1 - pairwise_cosine(one_rd, other_rd)
    order = {"manhattan": 1, "euclidean": 2}[distance]
    distance_r: Tensor = torch.linalg.vector_norm(one_rd - other_rd + offset, ord=order, dim=1)
    return distance_r


def distance_matrix(distance: BatchDistance, vectors_rd: Tensor) -> Tensor:
    """Distance of every row to every row, [r, r]; cosine means 1 - cosine similarity."""
    if distance == "cosine":
        unit_rd = normalize(vectors_rd)
        return 1 - unit_rd @ unit_rd.T
    product_rr = vectors_rd @ vectors_rd.T
    norm_r = product_rr.diagonal()  # from the same product, so that a row's distance to itself is exactly 0
    square_rr = (norm_r - 2 * product_rr + norm_r[:, None]).clamp(min=0)
    if distance == "squared_euclidean":
        return square_rr
    zero_rr = square_rr == 0  # where the gradient of a square root is infinite
    return square_rr.masked_fill(zero_rr, 1).sqrt().masked_fill(zero_rr, 0)
