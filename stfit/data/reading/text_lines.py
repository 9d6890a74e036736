"""Text files, line by line.

Lines have a maximum length, so that a file without line breaks raises an error instead of filling the memory.
"""

import codecs
import math
from collections.abc import Iterator
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

from stfit.data.reading.packed_file import CHUNK, is_packed, open_bytes, refuse_bomb
from stfit.data.source import ReadOptions, read_hint
from stfit.data.table import Table, build_table
from stfit.errors import DataError, Problem

Row = TypeVar("Row")

BLOCK_ROWS = 1024
BLOCK_CHARACTERS = 2**22
"""Of the lines of a block, unless one line has more."""
MAX_LINE = 64 * 2**20
"""Characters of one line, unpacked."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins with the mark of UTF-16, so it comes first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""First bytes of a file that say its encoding."""


OTHER_FORMATS = {
    b"\x1f\x8b": "compressed: add .gz to its name",
    b"BZh": "compressed: add .bz2 to its name",
    b"\xfd7zXZ": "compressed: add .xz to its name",
    b"\x28\xb5\x2f\xfd": "compressed: add .zst to its name",
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or save the table as CSV",
    b"PAR1": "a Parquet file: name it .parquet",
    b"ARROW1": "an Arrow file: name it .arrow",
    b"%PDF": "a PDF: extract its text",
}
"""First bytes of a file that is no text -> what it is, and what to do."""


def read_text_lines(path: Path, options: ReadOptions) -> Iterator[Table]:
    """Blocks of a file with one text per line, as the column `text`."""
    with open_bytes(path) as file:
        yield from text_blocks(file, path, options)


def text_blocks(file: IO[bytes], path: Path, options: ReadOptions) -> Iterator[Table]:
    for lines in line_blocks(read_lines(file, path, options, newline=None)):  # CR, LF and CRLF end a text
        yield build_table(str(path), {"text": [line.removesuffix("\n") for _, line in lines]}, {})


def line_blocks(lines: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Blocks of numbered lines that fit into memory."""
    block: list[tuple[int, str]] = []
    characters = 0
    for number, line in lines:
        block.append((number, line))
        characters += len(line)
        if len(block) == BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def in_blocks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while block := list(islice(rows, BLOCK_ROWS)):
        yield block


def read_lines(
    file: IO[bytes], path: Path, options: ReadOptions, newline: str | None = "\n"
) -> Iterator[tuple[int, str]]:
    """Line numbers from 1, and lines with their ends; `path`: for messages.

    Raises DataError for a line that is too long or in another encoding, and for a bomb. Closes the file.
    """
    number, unpacked, next_check = 0, 0, CHUNK if is_packed(path) else math.inf
    encoding = encoding_of(file.peek(4), options)  # type: ignore[attr-defined]
    with TextIOWrapper(file, encoding, newline=newline) as text:
        try:
            while line := text.readline(MAX_LINE + 1):
                number += 1
                unpacked += len(line)
                if unpacked > next_check:
                    refuse_bomb(path, unpacked)
                    next_check *= 2
                if len(line) > MAX_LINE:
                    size = f"{MAX_LINE // 2**20} MiB"
                    raise line_error(path, number, f"is longer than {size}: is this a file of one row per line?")
                yield number, line
        except UnicodeError as error:
            raise encoding_error(path, number + 1, encoding, error) from error


def encoding_of(start: bytes, options: ReadOptions) -> str:
    """The encoding that the first bytes of a file say, else that of the options."""
    for mark, name in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return name
    zeros = "".join("0" if byte == 0 else "x" for byte in start[:4])
    # UTF-16 without a mark: every other byte of ASCII text is zero.
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros, options.encoding)


def line_error(path: Path, number: int, message: str) -> DataError:
    return DataError(Problem(f"line {number} {message}", "unreadable-line", str(path), number))


def encoding_error(path: Path, number: int, encoding: str, error: UnicodeError) -> DataError:
    """Text is decoded some kilobytes ahead of its lines, so the line is looked for where the file can be read again."""
    near, is_marked = "or one soon after it ", False
    if path.is_file():
        number, near, is_marked = _first_undecodable_line(path, encoding) or number, "", _has_mark(path)
    found = error.object[error.start :][:1] if isinstance(error, UnicodeDecodeError) else b""
    byte = f" (byte 0x{found.hex()})" if found else ""
    hint = f"{read_hint('encoding', 'cp1252')}, or whatever it was written in (utf-16, shift_jis, gb18030, ...)"
    if path.is_file() and (other := _other_format(path)):
        hint = other
    elif is_marked:
        hint = "the file begins with the byte order mark of this encoding, so it is damaged: write it again"
    return line_error(path, number, f"{near}is not {encoding}{byte}: {hint}")


def _other_format(path: Path) -> str:
    """What to do with a file whose first bytes say that it is no text."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((f"it is {kind}" for magic, kind in OTHER_FORMATS.items() if start.startswith(magic)), "")


def _has_mark(path: Path) -> bool:
    with open_bytes(path) as file:
        return file.peek(4).startswith(tuple(BYTE_ORDER_MARKS))


def _first_undecodable_line(path: Path, encoding: str) -> int | None:
    """None if the encoding has no place for foreign bytes (UTF-16, for one)."""
    with open_bytes(path) as file, TextIOWrapper(file, encoding, errors="surrogateescape", newline="\n") as text:
        try:
            lines = enumerate(iter(lambda: text.readline(MAX_LINE), ""), start=1)
            return next((number for number, line in lines if _has_escape(line)), None)
        except UnicodeError:
            return None


def _has_escape(line: str) -> bool:
    return not line.isascii() and any("\udc80" <= character <= "\udcff" for character in line)
