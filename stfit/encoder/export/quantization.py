"""Embeddings in fewer bits: float16, one byte per dimension by calibrated ranges, or one bit per dimension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stfit.encoder.folder.resolve import ALL_FILES, locate, model_in
from stfit.errors import DataError
from stfit.io.atomic import atomic_write
from stfit.io.json_files import load_json

CALIBRATED = ("int8", "uint8")
RANGES = "int8_ranges.json"
"""File of a model folder: the ranges that it was published with."""

MIN_TEXTS = 100
"""Ranges of fewer texts are too narrow for other texts, whose values are cut off."""

CONDITIONS = {"normalize": "of the other length (see --normalize)", "model": "by another model"}
"""Key in a file of ranges -> how the embeddings differ if its value does."""

DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "uint8": np.uint8}
DTYPES |= {"binary": np.int8, "ubinary": np.uint8}


@dataclass(frozen=True)
class Ranges:
    """Lowest and highest value of each dimension, both [dim]: the range of the 256 values of a byte."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def from_embeddings(cls, embedding_rd: np.ndarray) -> Ranges:
        return cls(embedding_rd.min(axis=0), embedding_rd.max(axis=0))

    def union(self, other: Ranges) -> Ranges:
        return Ranges(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def check_ranges(ranges: Ranges, texts: int) -> list[str]:
    """Warnings about ranges that were computed from `texts` texts. Raises DataError if they can't tell texts apart."""
    constant, dim = int((ranges.low >= ranges.high).sum()), len(ranges.low)
    one_value = f"{constant} of {dim} dimensions have one value in all {texts} texts"
    if not (np.isfinite(ranges.low).all() and np.isfinite(ranges.high).all()):
        raise DataError("an embedding is not finite, so there is no range to divide: is the model damaged?")
    if constant == dim or (constant and texts < MIN_TEXTS):
        raise DataError(
            f"{one_value}, so there is no range to divide: compute the ranges from a larger input, or use --precision "
            "float16"
        )
    warnings = [f"{one_value}, and tell no text from another"] if constant else []
    if texts < MIN_TEXTS:
        warnings.append(f"the ranges are those of {texts} texts; values of other texts outside of them are cut off")
    return warnings


def quantize(embedding_rd: np.ndarray, precision: str, ranges: Ranges | None) -> np.ndarray:
    """Convert float embeddings [r, d] with the conventions of sentence-transformers; binary ones become [r, d / 8]."""
    if precision in CALIBRATED:
        assert ranges is not None
        step = np.where(ranges.high > ranges.low, (ranges.high - ranges.low) / 255, 1)
        byte_rd = ((embedding_rd - ranges.low) / step).clip(0, 255).astype(np.uint8)
        return _as_signed(byte_rd) if precision == "int8" else byte_rd
    if precision in ("binary", "ubinary"):
        bits = np.packbits(embedding_rd > 0, axis=1)
        return _as_signed(bits) if precision == "binary" else bits
    return embedding_rd.astype(DTYPES[precision])


def dequantize(byte_rd: np.ndarray, ranges: Ranges) -> np.ndarray:
    """The middle of the range that each byte (int8 or uint8) stands for, float32 [r, d]."""
    step = np.where(ranges.high > ranges.low, (ranges.high - ranges.low) / 255, 0)
    return (ranges.low + (_as_unsigned(byte_rd) + 0.5) * step).astype(np.float32)


def unpack_signs(bits: np.ndarray) -> np.ndarray:
    """1 for a value above 0, else -1, float32 [r, 8 d] of binary or ubinary embeddings [r, d]."""
    return np.unpackbits(_as_unsigned(bits), axis=1).astype(np.float32) * 2 - 1


def _as_unsigned(byte_rd: np.ndarray) -> np.ndarray:
    return byte_rd if byte_rd.dtype == np.uint8 else (byte_rd.astype(np.int16) + 128).astype(np.uint8)


def _as_signed(byte_rd: np.ndarray) -> np.ndarray:
    return (byte_rd.astype(np.int16) - 128).astype(np.int8)


def ranges_of_model(model: str) -> Path | None:
    """The file of the ranges that a model was published with; None without one. `model`: folder, run or Hub id."""
    path = locate(model_in(model), None, ALL_FILES) / RANGES
    return path if path.is_file() else None


def load_ranges(path: Path, dim: int, conditions: Mapping[str, Any]) -> Ranges | None:
    """`conditions`: of what embeddings they must be; None if there is no file. Raises DataError if it does not fit."""
    try:
        written = load_json(path)
        with np.errstate(over="ignore"):  # refused below
            low, high = (np.array(written[key], dtype=np.float32) for key in ("low", "high"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not an stfit calibration file: {error}") from error
    if low.shape != (dim,) or high.shape != (dim,):
        raise DataError(f"{path} calibrates {low.size} dimensions, but these embeddings have {dim}")
    for key, value in conditions.items():  # an earlier version did not write them
        if written.get(key, value) != value:
            raise DataError(f"{path}: its ranges are of embeddings {CONDITIONS[key]}: use another file")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise DataError(f"{path}: a range is not finite in float32: compute the ranges again from finite embeddings")
    if not (low <= high).all() or (low == high).all():
        raise DataError(
            f"{path}: in a range, low must be below high: compute it again, from at least {MIN_TEXTS} texts"
        )
    return Ranges(low, high)


def save_ranges(ranges: Ranges, path: Path, conditions: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps({"low": ranges.low.tolist(), "high": ranges.high.tolist(), **conditions}) + "\n")
