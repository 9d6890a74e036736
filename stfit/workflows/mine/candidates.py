"""The texts that negatives are mined from, with embeddings in memory, or on disk as `stfit encode` wrote them."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.data.embeddings.read import Embeddings, map_embeddings, read_embeddings
from stfit.data.mapping.cells import as_text
from stfit.data.mapping.texts import stream_texts
from stfit.data.object_store import path_of
from stfit.data.source import Source, is_remote
from stfit.encoder.encoder import Encoder
from stfit.errors import DataError
from stfit.io.display import shorten

log = logging.getLogger("stfit")

BLOCK = 65_536
"""Rows that are compared at once."""


class Candidates(NamedTuple):
    texts: list[str]
    """Distinct, none of them blank."""
    ids: list[list[str]]
    """Of each text, which may be in several rows."""
    matrix: EmbeddingMatrix | None
    """None: the texts have to be embedded."""

    def require_dim(self, encoder: Encoder, model: str) -> int:
        """Dimensions to compare: those on disk, which may have been cut. Raises DataError if the model has fewer."""
        dim = encoder.output_dim if self.matrix is None else self.matrix.dim
        if dim > encoder.embedding_dim:
            raise DataError(
                f"the embeddings of the corpus have {dim} dimensions, and those of {model} {encoder.embedding_dim}: "
                "mine with the model that wrote them, or encode again"
            )
        return dim

    def embedded(self, embed: Callable[[list[str]], np.ndarray]) -> EmbeddingMatrix:
        matrix = EmbeddingMatrix([embed(self.texts)]) if self.matrix is None else self.matrix
        broken = [
            start * BLOCK + row
            for start, block in enumerate(matrix.blocks(BLOCK))
            for row in np.flatnonzero(~np.isfinite(block).all(axis=1)).tolist()
        ]
        if broken:  # a similarity that is not a number is below no limit
            share, example = f"{len(broken)} of {len(self.texts)} texts", shorten(self.texts[broken[0]], 80)
            log.warning("%s have an embedding that is not finite, and are no negatives, such as %r", share, example)
        return matrix


def candidates_of_texts(texts: list[str]) -> Candidates:
    distinct = list(dict.fromkeys(texts))
    return Candidates(distinct, [[] for _ in distinct], None)


def candidates_of_corpus(corpus: Source, column: str | None) -> Candidates:
    """Of texts, or of embeddings with their texts. Raises DataError."""
    path = path_of(corpus.dataset)
    stored = None if column or is_remote(corpus.dataset) else read_embeddings(path)
    if stored is not None:
        return _stored_candidates(stored, path)
    ids: dict[str, list[str]] = {}
    for block in stream_texts(corpus, column, None):
        for id, text in zip(block.ids, block.texts, strict=True):
            if text.strip():
                ids.setdefault(text, []).append(as_text(id))
    return Candidates([*ids], [*ids.values()], None)


def _stored_candidates(stored: Embeddings, path: Path) -> Candidates:
    ids: dict[str, list[str]] = {}
    rows, arrays = [], []
    mapped = map_embeddings(path)
    count = 0
    for window in stored.windows:
        texts = window.columns.get("text")
        if texts is None:
            raise DataError(f"{path} holds embeddings without their texts: encode with --with-text")
        for row, (id, text) in enumerate(zip(window.ids, texts, strict=True), start=count):
            if text.strip():
                if text not in ids:
                    rows.append(row)
                ids.setdefault(text, []).append(as_text(id))
        count += len(texts)
        if mapped is None:
            arrays.append(window.values)
    return Candidates([*ids], [*ids.values()], EmbeddingMatrix(mapped or arrays, np.array(rows, dtype=np.int64)))
