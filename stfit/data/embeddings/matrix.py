"""Embeddings in several arrays, which may be memory-mapped files, as one matrix."""

from collections.abc import Iterator, Sequence

import numpy as np

from stfit.lazy import torch
from stfit.similarity import normalize


def read_rows(mapped_nd: np.ndarray, start: int, count: int) -> np.ndarray:
    """Rows of a memory-mapped .npy file, read from it: a page that is touched stays in the memory of the process."""
    rows_nd = mapped_nd[start : start + count]
    if not isinstance(mapped_nd, np.memmap) or not mapped_nd.flags.c_contiguous:
        return np.asarray(rows_nd)
    offset = mapped_nd.offset + start * mapped_nd.strides[0]
    return np.fromfile(str(mapped_nd.filename), mapped_nd.dtype, rows_nd.size, offset=offset).reshape(rows_nd.shape)


class EmbeddingMatrix:
    """Rows of the arrays, one after another: all of them, or those that `rows` names, ascending."""

    def __init__(self, arrays: Sequence[np.ndarray], rows: np.ndarray | None = None) -> None:
        self._arrays = arrays
        self._starts = np.cumsum([0, *map(len, arrays)])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows

    @property
    def dim(self) -> int:
        return int(self._arrays[0].shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    def unit_blocks(self, size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self), size):
            yield self.take_unit(np.arange(start, min(start + size, len(self))))

    def take(self, index: np.ndarray) -> np.ndarray:
        """The rows at these places, in this order, float32."""
        rows = self._rows[index]
        array_of = np.searchsorted(self._starts, rows, side="right") - 1
        taken = np.empty((len(rows), self.dim), dtype=np.float32)
        for number in np.unique(array_of):
            is_here = array_of == number
            taken[is_here] = self._arrays[number][rows[is_here] - self._starts[number]]
        return taken

    def take_unit(self, index: np.ndarray) -> np.ndarray:
        """The same, each of length 1."""
        return normalize(torch.from_numpy(self.take(index))).numpy()
