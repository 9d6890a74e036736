"""Embeddings in fewer bits: halves, bytes by a calibrated range, or one bit a dimension."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from stfit.errors import DataError, ResourceError
from stfit.io.json_files import load_json

Precision = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]

PRECISIONS: tuple[str, ...] = get_args(Precision)

CALIBRATED = ("int8", "uint8")
"""Those whose numbers only mean something together with the ranges they were made with."""

DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "uint8": np.uint8}
DTYPES |= {"binary": np.int8, "ubinary": np.uint8}


@dataclass(frozen=True)
class Ranges:
    """Lowest and highest value of each dimension, both [dim]: what the 256 steps of a byte are laid over."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def from_embeddings(cls, embedding_rd: np.ndarray) -> Ranges:
        """Of these embeddings."""
        return cls(embedding_rd.min(axis=0), embedding_rd.max(axis=0))

    def union(self, other: Ranges) -> Ranges:
        """Those of both."""
        return Ranges(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def quantize(embedding_rd: np.ndarray, precision: str, ranges: Ranges | None) -> np.ndarray:
    """Float embeddings [r, d] as `precision` says, with the conventions of sentence-transformers.

    int8 and uint8 take `ranges`; a value outside of them becomes the nearest step. binary and ubinary give [r, d / 8]:
    whether each value is above 0, eight to a byte.
    """
    if precision in CALIBRATED:
        assert ranges is not None
        step = np.where(ranges.high > ranges.low, (ranges.high - ranges.low) / 255, 1)
        byte_rd = ((embedding_rd - ranges.low) / step).clip(0, 255).astype(np.uint8)
        return _as_signed(byte_rd) if precision == "int8" else byte_rd
    if precision in ("binary", "ubinary"):
        bits = np.packbits(embedding_rd > 0, axis=1)
        return _as_signed(bits) if precision == "binary" else bits
    return embedding_rd.astype(DTYPES[precision])


def _as_signed(byte_rd: np.ndarray) -> np.ndarray:
    """0 ... 255 as -128 ... 127."""
    return (byte_rd.astype(np.int16) - 128).astype(np.int8)


def load_ranges(path: Path, dim: int) -> Ranges | None:
    """The ranges of a calibration file; None where there is no such file yet. Raises DataError where it doesn't fit."""
    try:
        written = load_json(path)
        low, high = (np.array(written[key], dtype=np.float32) for key in ("low", "high"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no calibration file that stfit wrote: {error}") from error
    if low.shape != (dim,) or high.shape != (dim,):
        raise DataError(f"{path} is a calibration of {len(low)} dimensions, and these embeddings have {dim}")
    return Ranges(low, high)


def save_ranges(ranges: Ranges, path: Path) -> None:
    """Write a calibration file. Raises ResourceError where it can't be written."""
    values = {"low": ranges.low.tolist(), "high": ranges.high.tolist()}
    try:
        path.write_text(json.dumps(values) + "\n", encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{path}: can't be written: {error.strerror}") from error
