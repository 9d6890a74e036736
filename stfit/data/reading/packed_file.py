"""Files as bytes, plain or compressed.

A compressed file has a maximum ratio: a small file that unpacks to gigabytes raises an error instead of filling the
memory.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stfit.data.object_store import local_copy, open_raw
from stfit.errors import DataError
from stfit.lazy import lazy
from stfit.paths import COMPRESSIONS

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

MAX_RATIO = 200
"""Unpacked size / packed size. Text compresses to a third or a tenth, a repeated line to a thousandth."""
MIN_ALLOWANCE = 256 * 2**20
"""Bytes that any file may unpack to."""
CHUNK = 2**20

OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
UNPACKING_ERRORS = (EOFError, zlib.error, lzma.LZMAError)
"""Of a damaged file, beside OSError."""


def is_packed(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSIONS


def open_bytes(path: Path) -> BufferedReader:
    """The unpacked bytes of a file; the result has `peek`."""
    if not is_packed(path):
        return BufferedReader(open_raw(path), CHUNK)
    path = local_copy(path)
    if path.suffix.lower() == ".zst":  # Python reads it from 3.14 on
        return BufferedReader(pa.input_stream(str(path), compression="zstd"))
    unpacked: BufferedReader = OPENERS[path.suffix.lower()](path, "rb")
    return unpacked


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked. Raises DataError for a bomb."""
    unpacked = bytearray()
    with open_bytes(path) as file:
        while chunk := file.read(CHUNK):
            unpacked += chunk
            if is_packed(path):
                refuse_bomb(path, len(unpacked))
    return bytes(unpacked)


def refuse_bomb(path: Path, unpacked: int) -> None:
    """Raises DataError if `unpacked` bytes are out of proportion to the size of the file."""
    packed = path.stat().st_size
    if unpacked > max(MIN_ALLOWANCE, MAX_RATIO * packed):
        raise DataError(
            f"{path}: its {packed} bytes unpack to more than {unpacked >> 20} MiB, over {MAX_RATIO} times their size: "
            "this is not a dataset of texts"
        )
