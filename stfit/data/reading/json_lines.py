"""JSON Lines: one object per line."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from stfit.data.reading.packed_file import open_bytes
from stfit.data.reading.text_lines import in_blocks, line_blocks, line_error, read_lines
from stfit.data.source import ReadOptions
from stfit.data.table import Table, build_table


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"`{next(name for name in names if names.count(name) > 1)}` occurs twice in an object")
    return keys


_decoder = json.JSONDecoder(object_pairs_hook=_object_of)
parse_json = _decoder.decode
"""Raises ValueError where one key of an object would replace another."""


def _parse_line(line: str) -> Any:
    """The same in half the time: `decode` looks for white space around the value by patterns."""
    if line.startswith("{"):
        value, end = _decoder.raw_decode(line)
        if line[end:] in ("\n", ""):
            return value
    return parse_json(line)


def read_json_lines(path: Path, options: ReadOptions) -> Iterator[Table]:
    with open_bytes(path) as file:
        yield from json_blocks(file, path, options)


def json_blocks(file: IO[bytes], path: Path, options: ReadOptions) -> Iterator[Table]:
    """Blocks of an open file. `path`: for messages."""
    for lines in line_blocks(read_lines(file, path, options)):
        yield from record_blocks(parse_lines(lines, path), path)


def record_blocks(rows: Iterator[dict[str, Any]], path: Path) -> Iterator[Table]:
    """Blocks of rows; a key that a row lacks is None."""
    for records in in_blocks(rows):
        names = dict.fromkeys(chain.from_iterable(records))
        yield build_table(str(path), {name: [record.get(name) for record in records] for name in names}, {})


def parse_lines(lines: Iterable[tuple[int, str]], path: Path) -> Iterator[dict[str, Any]]:
    """The objects of numbered lines; blank lines are skipped."""
    for number, line in lines:
        if line.isspace():
            continue
        try:
            record = _parse_line(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error).partition("; use sys.")[0]
            raise line_error(path, number, f"is not valid JSON: {reason}{_hint(line)}") from error
        if not isinstance(record, dict):
            message = 'is not a JSON object such as {"text": "...", "label": 0}'
            raise line_error(path, number, message + _hint(line))
        yield record


def _hint(line: str) -> str:
    """What to do with JSON that is not one object a line."""
    if line.startswith("["):
        return "; if the whole file is one array, name it .json"
    return "; write each object on one line (jq -c)" if line.strip() == "{" else ""
