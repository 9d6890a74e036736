"""Embeddings as they will be stored, in bytes or signs, through which gradients pass as if nothing was rounded.

The straight-through estimator: Bengio et al., 2013, https://arxiv.org/abs/1308.3432. Tensor names: r = rows, d = dim.
"""

from typing import Literal

from stfit.lazy import Tensor, torch

Precision = Literal["float32", "int8", "binary"]
LEVELS = 255


def store(columns: dict[str, Tensor], precision: str) -> dict[str, Tensor]:
    """The columns [rows, dim] in a precision; a row of exact zeros, a missing text, stays zeros.

    int8: each dimension in 256 steps of its range in the batch. binary: the signs, in the length of the embedding.
    """
    if precision == "float32":
        return columns
    rounded = _in_bytes(columns) if precision == "int8" else {name: _signs(each) for name, each in columns.items()}
    return {name: vectors + (rounded[name] - vectors).detach() for name, vectors in columns.items()}


def _in_bytes(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    present_rd = torch.cat([vectors[(vectors != 0).any(dim=1)] for vectors in columns.values()]).detach()
    low_d, high_d = present_rd.amin(dim=0), present_rd.amax(dim=0)
    step_d = ((high_d - low_d) / LEVELS).clamp(min=torch.finfo(low_d.dtype).tiny)
    return {
        name: (low_d + ((vectors - low_d) / step_d).round() * step_d) * (vectors != 0).any(dim=1, keepdim=True)
        for name, vectors in columns.items()
    }


def _signs(vector_rd: Tensor) -> Tensor:
    length_r1 = torch.linalg.vector_norm(vector_rd, dim=1, keepdim=True) / vector_rd.shape[1] ** 0.5
    return torch.where(vector_rd > 0, length_r1, -length_r1)
