"""Embeddings in the data: for each row a list of numbers that the embeddings of its texts should equal."""

from typing import Any

import numpy as np

from stfit.data.table import name_rows
from stfit.errors import DataError, Problem

Vectors = list[np.ndarray | None]
"""None for a row without one."""


def read_vectors(cells: list[Any], rows: np.ndarray) -> Vectors:
    """The vector of each row, float32. Raises DataError, with rows, for other lengths than the first, or NaN."""
    vectors: Vectors = [None if cell is None or cell == [] else _vector(cell) for cell in cells]
    dim = next((len(vector) for vector in vectors if vector is not None), 0)
    wrong: dict[str, list[int]] = {}
    for cell, vector, row in zip(cells, vectors, rows.tolist(), strict=True):
        if vector is None:
            continue
        if not dim or not len(vector) or not np.isfinite(vector).all():
            wrong.setdefault(f"is not a list of finite numbers, but {cell!r:.60}", []).append(row)
        elif len(vector) != dim:
            wrong.setdefault(f"has {len(vector)} numbers, and that of the first row has {dim}", []).append(row)
    if wrong:
        raise DataError(
            [
                Problem(f"embedding {reason} ({name_rows(at)})", "bad-embedding", row=at[0], key="columns.embedding")
                for reason, at in wrong.items()
            ]
        )
    return vectors


def _vector(cell: Any) -> np.ndarray:
    """Empty if it is no list of numbers."""
    try:
        vector = np.array(cell)
    except ValueError:  # lists of different lengths
        return np.empty(0, dtype=np.float32)
    is_list = isinstance(cell, list) and vector.ndim == 1 and np.issubdtype(vector.dtype, np.number)
    return vector.astype(np.float32) if is_list else np.empty(0, dtype=np.float32)


def stack_vectors(vectors: Vectors | None, chosen: np.ndarray) -> np.ndarray | None:
    """Those of the chosen rows, which all have one, [rows, dim] float32."""
    if vectors is None:
        return None
    found = [vector for i in chosen.tolist() if (vector := vectors[i]) is not None]
    return np.stack(found) if found else np.empty((0, 0), dtype=np.float32)
