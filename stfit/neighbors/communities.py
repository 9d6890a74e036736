"""Communities of texts: groups whose members are similar to one of them, which share no text.

The result is that of community_detection in sentence-transformers: every text with enough others at or above a
similarity is a possible center; the center with the most neighbors comes first, and a later one keeps what is left.
Tensor names: n = rows of a block, m = pairs, d = embedding dim, p = dims of the projection.
"""

from typing import NamedTuple

import numpy as np

from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.errors import DataError
from stfit.lazy import Tensor, torch
from stfit.progress import task

BLOCK = 2048
SAMPLE = 2000
"""Rows that tell which projection is the fastest."""
PROJECTIONS = (32, 64, 96, 128, 192)
PAIR_COST = 200
"""Cost of the cosine of one pair that is picked out, relative to that of a pair in a product of matrices."""
ROUNDING = 1e-5
MAX_PAIRS = 2**28


def find_communities(
    rows: EmbeddingMatrix, threshold: float, min_size: int, device: str = "cpu"
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The rows of each community and their cosines with its center, which is the first; the largest community first.

    Every member has a cosine of at least `threshold` with the center. Raises DataError for too many such pairs.
    """
    first_m, second_m, score_m = _close_pairs(rows, threshold, device)
    own = np.arange(len(rows))
    center_e = np.concatenate([first_m, second_m, own])
    member_e = np.concatenate([second_m, first_m, own])
    score_e = np.concatenate([score_m, score_m, np.ones(len(rows), dtype=np.float32)])
    order_e = np.argsort(center_e, kind="stable")
    count_r = np.bincount(center_e, minlength=len(rows))
    start_r = np.concatenate([[0], np.cumsum(count_r)])
    is_used_r = np.zeros(len(rows), dtype=bool)
    found = []
    for center in np.argsort(-count_r, kind="stable").tolist():
        if count_r[center] < min_size:
            break
        if is_used_r[center]:
            continue
        edges = order_e[start_r[center] : start_r[center + 1]]
        edges = edges[~is_used_r[member_e[edges]]]
        if len(edges) >= min_size:
            score, member = score_e[edges], member_e[edges]
            best_first = np.lexsort((member, -score, member != center))
            found.append((member[best_first], score[best_first]))
            is_used_r[member] = True
    return sorted(found, key=lambda community: -len(community[0]))


def _close_pairs(rows: EmbeddingMatrix, threshold: float, device: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both rows of every pair at or above the threshold, the smaller one first, and their cosine.

    Most pairs are far below it, which a projection with fewer dimensions shows: with the lengths r of what it leaves
    out of two unit vectors, their cosine is at most the product of the projections + r r' (Cauchy and Schwarz).
    """
    unit_nd = torch.cat([torch.from_numpy(block).to(device) for block in rows.unit_blocks(BLOCK)])
    basis_dp = _choose_basis(unit_nd, threshold)
    projected_np = _project(unit_nd, basis_dp)
    starts = range(0, len(rows), BLOCK)
    buffers = Buffers(torch.empty(BLOCK**2, device=device), torch.empty(BLOCK**2, dtype=torch.bool, device=device))
    found = []
    total = 0
    with task(f"comparing {len(rows):,} texts with each other", len(starts) * (len(starts) + 1) // 2) as step:
        for number, start in enumerate(starts):
            for later in starts[number:]:
                bound_nn = buffers.multiply(*(projected_np[first : first + BLOCK] for first in (start, later)))
                if later == start:
                    bound_nn.masked_fill_(torch.ones_like(bound_nn, dtype=torch.bool).tril(), -torch.inf)
                pair_2m = buffers.places_at_least(threshold - (0 if basis_dp is None else ROUNDING), bound_nn)
                if basis_dp is None:
                    score_m = bound_nn[tuple(pair_2m)]
                else:
                    score_m = _cosines(pair_2m, unit_nd[start : start + BLOCK], unit_nd[later : later + BLOCK])
                is_close_m = score_m >= threshold
                pair_2m += torch.tensor([[start], [later]], device=device)
                found.append((pair_2m[:, is_close_m].cpu().numpy(), score_m[is_close_m].cpu().numpy()))
                total += len(found[-1][1])
            if total > MAX_PAIRS:
                raise DataError(f"more than {MAX_PAIRS:,} pairs have a cosine of {threshold}: set a higher --clusters")
            step.advance(len(starts) - number)
    first_m, second_m = np.concatenate([pairs for pairs, _ in found], axis=1)
    return first_m, second_m, np.concatenate([score for _, score in found])


class Buffers(NamedTuple):
    """Memory for what is computed of two blocks: to ask for it anew takes as long as a product of few dimensions."""

    number: Tensor
    mask: Tensor

    def multiply(self, one_np: Tensor, other_np: Tensor) -> Tensor:
        shape = len(one_np), len(other_np)
        return torch.mm(one_np, other_np.T, out=self.number[: shape[0] * shape[1]].view(shape))

    def places_at_least(self, threshold: float, number_nn: Tensor) -> Tensor:
        """Row and column of each number that is high enough, [2, m]."""
        mask_nn = torch.ge(number_nn, threshold, out=self.mask[: number_nn.numel()].view(number_nn.shape))
        flat_m = np.flatnonzero(mask_nn.cpu().numpy())  # much faster than nonzero of torch
        return torch.from_numpy(np.stack(np.divmod(flat_m, number_nn.shape[1]))).to(number_nn.device)


def _cosines(pair_2m: Tensor, own_nd: Tensor, other_nd: Tensor) -> Tensor:
    """Of pairs of rows of two blocks."""
    if pair_2m.shape[1] * PAIR_COST > len(own_nd) * len(other_nd):
        return (own_nd @ other_nd.T)[tuple(pair_2m)]
    return torch.linalg.vecdot(own_nd.index_select(0, pair_2m[0]), other_nd.index_select(0, pair_2m[1]))


def _choose_basis(unit_nd: Tensor, threshold: float) -> Tensor | None:
    """The main directions [d, p] that leave the least to do, by a sample of rows; None compares whole embeddings."""
    sample_nd = unit_nd[:: max(1, len(unit_nd) // SAMPLE)][:SAMPLE]
    dim = unit_nd.shape[1]
    basis_dd = torch.linalg.eigh(sample_nd.T @ sample_nd).eigenvectors.flip(1)
    best, least = None, float(dim)
    for dims in PROJECTIONS:
        if dims < dim:
            projected_np = _project(sample_nd, basis_dd[:, :dims])
            above = (projected_np @ projected_np.T >= threshold).float().mean().item() - 1 / len(sample_nd)
            cost = dims + min(1.0, above * PAIR_COST) * dim
            if cost < least:
                best, least = basis_dd[:, :dims].contiguous(), cost
    return best


def _project(unit_nd: Tensor, basis_dp: Tensor | None) -> Tensor:
    """The projection and the length of what it leaves out [n, p + 1]; without a basis, the vectors as they are."""
    if basis_dp is None:
        return unit_nd
    projected_np = unit_nd @ basis_dp
    rest_n = (1 - projected_np.square().sum(dim=1)).clamp(min=0).sqrt()
    return torch.cat([projected_np, rest_n[:, None]], dim=1)
