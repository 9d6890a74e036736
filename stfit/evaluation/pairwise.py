"""Similarity of embeddings row by row; a distance counts as its negative, so that higher always means nearer.

Tensor names: r = rows, d = embedding dim.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _compute_cosine(one_rd: np.ndarray, other_rd: np.ndarray) -> np.ndarray:
    """Cosine of each row's two vectors; 0 where one of them is zero."""
    lengths_r = np.linalg.norm(one_rd, axis=1) * np.linalg.norm(other_rd, axis=1)
    cosine_r: np.ndarray = _compute_dot(one_rd, other_rd) / np.where(lengths_r == 0, 1, lengths_r)
    return cosine_r


def _compute_dot(one_rd: np.ndarray, other_rd: np.ndarray) -> np.ndarray:
    """Dot product of each row's two vectors."""
    dot_r: np.ndarray = np.einsum("rd,rd->r", one_rd, other_rd)
    return dot_r


def _compute_euclidean(one_rd: np.ndarray, other_rd: np.ndarray) -> np.ndarray:
    """Negative Euclidean distance."""
    distance_r: np.ndarray = np.linalg.norm(one_rd - other_rd, axis=1)
    return -distance_r


def _compute_manhattan(one_rd: np.ndarray, other_rd: np.ndarray) -> np.ndarray:
    """Negative Manhattan distance."""
    distance_r: np.ndarray = np.abs(one_rd - other_rd).sum(axis=1)
    return -distance_r


SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": _compute_cosine,
    "dot": _compute_dot,
    "euclidean": _compute_euclidean,
    "manhattan": _compute_manhattan,
}
