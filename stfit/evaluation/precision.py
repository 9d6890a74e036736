"""Embeddings as an index stores them: in bytes or bits, decoded for the comparison.

int8: a byte for each dimension, by the ranges of the corpus, as `stfit encode --precision int8` writes them. binary:
the sign of each dimension; two texts are as similar as many signs are equal. binary+rescore: a search by signs, whose
first documents are then ordered by the float query and the documents' bytes (https://arxiv.org/abs/2106.00882).
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from stfit.encoder.export.quantization import Ranges, dequantize, quantize
from stfit.evaluation.base import Embed
from stfit.neighbors.exact import CHUNK

NO_BITS = ("euclidean", "manhattan")
"""Similarities that signs can't have."""


def in_unit_length(embed: Embed) -> Embed:
    """Embeddings of length 1, which cosines are computed of; zeros stay zeros."""

    def unit(role: str, texts: list[str]) -> np.ndarray:
        vectors = embed(role, texts)
        norm_r1 = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norm_r1 > 0, norm_r1, 1)

    return unit


def ranges_of(texts: dict[str, list[str]], embed: Embed) -> Ranges:
    """Those of the corpus; of an evaluator without one, those of all its texts."""
    roles = ["corpus"] if "corpus" in texts else list(texts)
    parts = (
        Ranges.from_embeddings(embed(role, [text or "" for text in texts[role][start : start + CHUNK]]))
        for role in roles
        for start in range(0, len(texts[role]), CHUNK)
    )
    return reduce(Ranges.union, parts)


def as_bytes(embed: Embed, ranges: Ranges) -> Embed:
    """Every value becomes the middle of the range that its byte stands for."""
    return lambda role, texts: dequantize(quantize(embed(role, texts), "uint8", ranges), ranges)


def as_signs(embed: Embed) -> Embed:
    """1 for a value above 0, else -1."""
    return lambda role, texts: np.where(embed(role, texts) > 0, np.float32(1), np.float32(-1))


def measure_stored(
    evaluator: Any, measure: Callable[..., Any], rows: Any, embed: Embed, similarity: str
) -> dict[str, dict[str, Any]]:
    """Precision of the evaluator -> what its `measure` finds with embeddings that are stored in it."""
    precisions = evaluator.stored_precisions
    embed = in_unit_length(embed) if similarity == "cosine" else embed
    found: dict[str, dict[str, Any]] = {}
    ranges = ranges_of(rows.texts, embed) if {"int8", "binary+rescore"} & {*precisions} else None
    for precision in precisions:
        if precision == "int8" and ranges is not None:
            found[precision] = measure(rows, as_bytes(embed, ranges), similarity)
        elif precision == "binary":
            found[precision] = measure(rows, as_signs(embed), similarity)
        elif precision == "binary+rescore" and ranges is not None:
            found[precision] = evaluator.measure_rescored(
                rows, as_signs(embed), embed, as_bytes(embed, ranges), similarity
            )
    return found
