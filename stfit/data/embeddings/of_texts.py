"""Embeddings that `stfit encode --part --with-text` wrote, by their texts: for the model that they were made by."""

import logging
from typing import NamedTuple

import numpy as np

from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.data.embeddings.parts import complete_parts, read_parts
from stfit.data.object_store import local_copy, path_of

log = logging.getLogger("stfit")


class EmbeddingsOfTexts(NamedTuple):
    prompt: str
    row_of: dict[str, int]
    matrix: EmbeddingMatrix
    """Memory-mapped."""

    def take(self, texts: list[str]) -> np.ndarray:
        return self.matrix.take(np.array([self.row_of[text] for text in texts], dtype=np.int64))


def embeddings_of_texts(dataset: str, model: str, dim: int) -> EmbeddingsOfTexts | None:
    """Those of a folder of parts; None if they are not what the model gives, which is logged.

    `model`: the fingerprint of the encoder; `dim`: of its embeddings.
    """
    parts = complete_parts(local_copy(path_of(dataset)))
    made = parts[0].made
    wanted = {"model": model, "dimensions": dim, "normalize": False, "precision": "float32", "fast": False}
    if differ := [name for name, value in wanted.items() if made[name] != value]:
        log.info("%s: embedded again, since its embeddings have another %s", dataset, " and ".join(differ))
        return None
    row_of: dict[str, int] = {}
    count = 0
    for window in read_parts(parts):
        for text in window.columns.get("text", []):
            row_of.setdefault(text, count)
            count += 1
    return EmbeddingsOfTexts(made["prompt"], row_of, EmbeddingMatrix([stored.values for stored in parts]))
