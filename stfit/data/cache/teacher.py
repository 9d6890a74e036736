"""What a teacher makes of texts, on disk, so that a corpus is embedded once over all runs that learn from it.

The texts come in windows, one file each, named by the teacher and the texts: an interrupted run goes on with the window
it was in, and rows added at the end of a dataset cost no more than themselves. Deleting the folder loses only time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stfit.data.cache.tokens import cache_folder, cache_key

log = logging.getLogger("stfit")

WINDOW = 4096
"""Texts in a file: some seconds of a teacher's time."""

Embed = Callable[[list[str]], np.ndarray]
"""Texts -> [texts, dim], float32."""


@dataclass(frozen=True)
class WindowedEmbeddings:
    """Embeddings of distinct texts, in windows that are memory-mapped where the disk had room for them."""

    windows: list[np.ndarray]

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """[rows, dim] of the texts at these places; of no text (-1) zeros."""
        found = np.zeros((len(places), self.windows[0].shape[1]), np.float32)
        for number in np.unique(places[places >= 0] // WINDOW):
            inside = places // WINDOW == number
            found[inside] = self.windows[number][places[inside] % WINDOW]
        return found


@dataclass(frozen=True)
class TeacherEmbeddings:
    """A teacher's embeddings in the place of a label: indexed by rows, they are [rows, columns, dim]."""

    columns: list[tuple[WindowedEmbeddings, np.ndarray]]
    """For each column its embeddings, and at which place there each row has its text."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """What the teacher makes of these rows' texts."""
        return np.stack([embeddings[places[rows]] for embeddings, places in self.columns], axis=1)


def load_embeddings(texts: list[str], embed: Embed, teacher: str) -> WindowedEmbeddings:
    """Embeddings of distinct texts, from disk as far as they are there. `teacher` names all that decides them."""
    windows = []
    for start in range(0, len(texts), WINDOW):
        window = texts[start : start + WINDOW]
        path = cache_folder("teachers") / f"{cache_key(window, teacher)}.npy"
        try:
            found = _read(path, len(window))
        except (OSError, ValueError, EOFError):  # not there yet, or damaged
            found = embed(window)
            log.info("taught: %d of %d texts", start + len(window), len(texts))
            try:
                _write(path, found)
                found = _read(path, len(window))
            except OSError as error:  # a full or read-only disk costs memory and the next run's time, not this run
                log.warning("embeddings of the teacher are not kept for the next run: %s", error)
        windows.append(found)
    return WindowedEmbeddings(windows)


def _read(path: Path, texts: int) -> np.ndarray:
    """What `write` wrote, memory-mapped. Raises OSError, EOFError or ValueError where it can't be used."""
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.ndim != 2 or len(found) != texts or found.dtype != np.float32:
        raise ValueError(f"{path} holds {found.dtype} of shape {found.shape} instead of {texts} embeddings")
    return found


def _write(path: Path, embedding_td: np.ndarray) -> None:
    """One window; a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    with scratch.open("wb") as file:
        np.save(file, embedding_td)
    scratch.replace(path)
