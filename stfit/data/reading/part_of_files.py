"""A part of the rows of some files, which opens files where the part begins and reads no more than it needs.

The files are one sequence of bytes, of which each part has a range. A line belongs to the part that its first byte is
in; of a parquet file, a range of bytes stands for the same share of its rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BufferedReader, RawIOBase
from itertools import accumulate
from pathlib import Path
from typing import IO

from stfit.data.object_store import is_stored, open_raw
from stfit.data.part import Part
from stfit.data.reading.json_lines import json_blocks
from stfit.data.reading.local_files import read_file
from stfit.data.reading.packed_file import CHUNK, is_packed, open_bytes
from stfit.data.reading.parquet import count_parquet_rows, read_parquet
from stfit.data.reading.text_lines import encoding_of, text_blocks
from stfit.data.source import ReadOptions
from stfit.data.table import Table
from stfit.paths import data_kind

log = logging.getLogger("stfit")

LINE_READERS: dict[str, Callable[[IO[bytes], Path, ReadOptions], Iterator[Table]]] = {
    ".jsonl": json_blocks,
    ".ndjson": json_blocks,
    ".txt": text_blocks,
}
"""Suffix of files whose rows are lines, without quotes in which a row could go on -> the reader of an open file."""


LINE = 2**16
"""Bytes in which the end of a line is looked for at once."""


@dataclass(frozen=True)
class Portion:
    """What a part takes of a file."""

    path: Path
    bytes: range
    size: int

    def share_of(self, rows: int) -> range:
        return range(rows * self.bytes.start // self.size, rows * self.bytes.stop // self.size)


def portions(files: list[Path], part: Part) -> list[Portion]:
    sizes = [path.stat().st_size for path in files]
    own = part.share_of(sum(sizes))
    ends = list(accumulate(sizes))
    found = []
    for path, size, end in zip(files, sizes, ends, strict=True):
        start = end - size
        taken = range(max(own.start, start) - start, min(own.stop, end) - start)
        if taken:
            found.append(Portion(path, taken, size))
    return found


def read_portion(portion: Portion, options: ReadOptions) -> Iterator[Table]:
    """Blocks of the rows. Raises DataError."""
    path, kind = portion.path, data_kind(portion.path.name)
    if len(portion.bytes) == portion.size:
        yield from read_file(path, options)
    elif kind == ".parquet":
        yield from read_parquet(path, options, portion.share_of(count_parquet_rows(path)))
    elif _has_lines(path, options):
        yield from LINE_READERS[kind](_open_lines(path, portion.bytes), path, options)
    else:
        log.warning(
            "%s: can't be opened in the middle, so several parts read it whole: write it as several files, as .parquet "
            "or as .jsonl",
            path,
        )
        rows = sum(len(table) for table in read_file(path, options))
        yield from slice_blocks(read_file(path, options), portion.share_of(rows))


def count_portion_rows(portion: Portion, options: ReadOptions) -> int | None:
    """Rows of the portion, about: lines count as rows. None if only reading would tell."""
    path, bytes, kind = portion.path, portion.bytes, data_kind(portion.path.name)
    if kind == ".parquet":
        return len(portion.share_of(count_parquet_rows(path)))
    if is_stored(path):
        return None  # to count lines, the share would be read twice
    if kind not in (*LINE_READERS, ".csv", ".tsv") or (len(bytes) < portion.size and not _has_lines(path, options)):
        return None
    with open_bytes(path) as file:
        if len(bytes) == portion.size:  # of the unpacked file
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(CHUNK), b""))
        file.seek(bytes.start)
        return sum(file.read(min(CHUNK, bytes.stop - start)).count(b"\n") for start in bytes[::CHUNK])


def slice_blocks(blocks: Iterator[Table], rows: range) -> Iterator[Table]:
    """These rows of the blocks; the others are read as well."""
    start = 0
    for table in blocks:
        first, last = max(rows.start - start, 0), min(rows.stop - start, len(table))
        if first < last:
            columns = {name: cells[first:last] for name, cells in table.columns.items()}
            yield replace(table, columns=columns, row=table.row[first:last])
        start += len(table)


def _has_lines(path: Path, options: ReadOptions) -> bool:
    """Whether every byte of a line end is one: in UTF-16 it may be half of a letter."""
    if is_packed(path) or data_kind(path.name) not in LINE_READERS or options.delimiter:
        return False
    with open_raw(path) as file:
        encoding = encoding_of(file.read(4) or b"", options).lower().replace("_", "-")
    return not encoding.startswith(("utf-16", "utf-32", "utf16"))


def _open_lines(path: Path, bytes: range) -> BufferedReader:
    """The lines that begin in these bytes of a file."""
    with open_raw(path) as file:
        start, stop = (_next_line(file, position) for position in (bytes.start, bytes.stop))
    return BufferedReader(_Range(path, start, stop), CHUNK)


def _next_line(file: RawIOBase, position: int) -> int:
    """Where the first line begins that does not begin before this position."""
    if position == 0:
        return 0
    at = file.seek(position - 1)
    while chunk := file.read(LINE):
        if (end := chunk.find(b"\n")) >= 0:
            return at + end + 1
        at += len(chunk)
    return at


class _Range(RawIOBase):
    """The bytes of a file from `start` to `stop`."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self._file, self._left = open_raw(path), stop - start
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._file.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
