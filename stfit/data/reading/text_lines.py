"""Text files, plain or gzipped, line by line.

Lines have a maximum length and gzips a maximum ratio: a small file that unpacks to gigabytes raises an error instead
of filling the memory.
"""

import gzip
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from stfit.data.source import ReadOptions
from stfit.data.table import Table, build_table
from stfit.errors import DataError, Problem

Row = TypeVar("Row")

BLOCK_ROWS = 1024
MAX_LINE = 64 * 2**20
"""Characters (bytes in JSON Lines) of one line, unpacked."""
MAX_RATIO = 200
"""Unpacked size / packed size. Text compresses to a third or a tenth, a repeated line to a thousandth."""
MIN_ALLOWANCE = 256 * 2**20
"""Bytes that any file may unpack to."""


def read_text_lines(path: Path, options: ReadOptions) -> Iterator[Table]:
    """Blocks of a file with one UTF-8 text per line, as the column `text`."""
    with open_bytes(path) as file:
        yield from text_blocks(file, path)


def text_blocks(file: IO[bytes], path: Path) -> Iterator[Table]:
    for texts in in_blocks(_decode_lines(file, path)):
        yield build_table(str(path), {"text": texts}, {})


def _decode_lines(file: IO[bytes], path: Path) -> Iterator[str]:
    for number, line in read_lines(file, path):
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise line_error(path, number, f"is not UTF-8: {error.reason} at byte {error.start} of the line") from error


def in_blocks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while block := list(islice(rows, BLOCK_ROWS)):
        yield block


def open_bytes(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def read_lines(file: IO[str] | IO[bytes], path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers from 1, and lines. Raises DataError for a line that is too long, or a gzip bomb."""
    number = unpacked = 0
    next_check = MIN_ALLOWANCE
    while line := file.readline(MAX_LINE + 1):
        number += 1
        unpacked += len(line)
        if unpacked > next_check and path.suffix == ".gz":
            refuse_bomb(path, unpacked)
            next_check *= 2
        if len(line) > MAX_LINE:
            raise line_error(
                path, number, f"is longer than {MAX_LINE // 2**20} MiB: is this a file of one row per line?"
            )
        yield number, line


def line_error(path: Path, number: int, message: str) -> DataError:
    return DataError(Problem(f"line {number} {message}", "unreadable-line", str(path), number))


def refuse_bomb(path: Path, unpacked: int) -> None:
    """Raises DataError if `unpacked` bytes are out of proportion to the size of the file."""
    packed = path.stat().st_size
    if unpacked > max(MIN_ALLOWANCE, MAX_RATIO * packed):
        raise DataError(
            f"{path}: its {packed} bytes unpack to more than {unpacked >> 20} MiB, over {MAX_RATIO} times their size: "
            "this is not a dataset of texts"
        )
