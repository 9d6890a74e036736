"""Cache of a teacher's embeddings, so that a corpus is embedded once for all runs that learn from it.

Each file holds a window of texts and is named after teacher and texts. An interrupted run resumes at the window it was
in, and rows added at the end of a dataset cost only themselves.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stfit.data.cache.folder import cache_folder, mark_used, trim_cache
from stfit.data.cache.tokens import cache_key
from stfit.io.atomic import atomic_cache_entry
from stfit.io.hashing import hash_buffers
from stfit.progress import track

log = logging.getLogger("stfit")

HASH_CHARACTERS = 64
WINDOW = 4096
"""Texts per file: a few seconds of a teacher's time."""

Embed = Callable[[list[str]], np.ndarray]
"""Texts -> [texts, dim], float32."""


@dataclass(frozen=True)
class WindowedEmbeddings:
    """Embeddings of distinct texts in windows, memory-mapped unless the disk was full."""

    windows: list[np.ndarray]
    size: int
    """Texts of each window but the last."""

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """Embeddings [len(index), dim] of the texts with these indices; zeros for a missing text (-1)."""
        embedding_nd = np.zeros((len(index), self.windows[0].shape[1]), np.float32)
        for number in np.unique(index[index >= 0] // self.size):
            inside = index // self.size == number
            embedding_nd[inside] = self.windows[number][index[inside] % self.size]
        return embedding_nd


@dataclass(frozen=True)
class TeacherEmbeddings:
    """A teacher's embeddings used as labels: indexing by rows gives [rows, columns, dim]."""

    columns: list[tuple[WindowedEmbeddings, np.ndarray]]
    """For each column: its embeddings, and the index of each row's text among them."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([embeddings[index[rows]] for embeddings, index in self.columns], axis=1)


def load_embeddings(
    texts: list[str], embed: Embed, teacher: str, size: int | None = None, doing: str | None = None
) -> WindowedEmbeddings:
    """Embeddings of distinct texts, cached under `teacher`, which identifies the teacher and its settings.

    `size`: texts per file; `doing`: what the progress says.
    """
    size, windows = size or WINDOW, []
    for start in track(range(0, len(texts), size), doing or f"embedding {len(texts):,} texts with the teacher"):
        window = texts[start : start + size]
        path = cache_folder("teachers") / f"{cache_key(window, teacher)}.npy"
        try:
            embedding_td = _read(path, len(window))
            mark_used(path)
        except (OSError, ValueError, EOFError):  # missing or damaged
            embedding_td = embed(window)
            log.info("teacher: %d of %d done", start + len(window), len(texts))
            try:
                with atomic_cache_entry(path) as temporary, temporary.open("wb") as file:
                    np.save(file, embedding_td)
                    file.write(hash_buffers(embedding_td).encode())
                embedding_td = _read(path, len(window))
                trim_cache()
            except OSError as error:  # a full or read-only disk must not end the run
                log.warning("the teacher's embeddings can't be cached for the next run: %s", error)
        windows.append(embedding_td)
    return WindowedEmbeddings(windows, size)


def _read(path: Path, texts: int) -> np.ndarray:
    """A cached window, memory-mapped. Raises OSError, EOFError or ValueError if it can't be used."""
    window: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if window.ndim != 2 or len(window) != texts or window.dtype != np.float32:
        raise ValueError(f"{path} holds {window.dtype} of shape {window.shape} instead of {texts} embeddings")
    with path.open("rb") as file:
        file.seek(-HASH_CHARACTERS, os.SEEK_END)
        if file.read() != hash_buffers(window).encode():
            raise ValueError(f"{path} differs from the digest at its end")
    return window
