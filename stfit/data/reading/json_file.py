"""A .json file: rows as an array of objects, columns as an object of arrays, or JSON Lines under this suffix.

It is read whole, so .jsonl is better for data larger than memory.
"""

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from stfit.data.reading.json_lines import parse_json, parse_lines, record_blocks
from stfit.data.reading.packed_file import read_bytes
from stfit.data.reading.text_lines import BLOCK_ROWS, encoding_error, encoding_of, line_error
from stfit.data.source import ReadOptions
from stfit.data.table import Table, build_table
from stfit.errors import DataError

SHAPES = 'write an array of objects, [{"text": "..."}], or an object of arrays, {"text": ["..."]}'
BY_INDEX = 'it holds an object of objects, as pandas writes by default: write it with `to_json(path, orient="records")`'


def read_json_file(path: Path, options: ReadOptions) -> Iterator[Table]:
    text = _read_text(path, options)
    try:
        content = parse_json(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise line_error(path, error.lineno, f"is not valid JSON: {error.msg} (column {error.colno})") from error
        yield from record_blocks(parse_lines(enumerate(StringIO(text), start=1), path), path)
        return
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    rows = _rows_in(content, path)
    if isinstance(rows, list):
        yield from record_blocks(iter(rows), path)
    else:
        yield from _column_blocks(rows, path)


def _read_text(path: Path, options: ReadOptions) -> str:
    raw = read_bytes(path)
    encoding = encoding_of(raw[:4], options)
    try:
        return raw.decode(encoding)
    except UnicodeError as error:
        raise encoding_error(path, 1, encoding, error) from error


def _rows_in(content: Any, path: Path) -> list[dict[str, Any]] | dict[str, list[Any]]:
    """The rows, or the columns, of what a file holds. Raises DataError for another shape."""
    if isinstance(content, dict):
        return _rows_in_object(content, path)
    if not isinstance(content, list):
        raise DataError(f"{path} holds neither rows nor columns: {SHAPES}")
    if all(isinstance(text, str) for text in content):
        return {"text": content}
    wrong = next((number for number, row in enumerate(content, start=1) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise DataError(f"{path}: element {wrong} of its array is not an object: {SHAPES}")
    return content


def _rows_in_object(content: dict[str, Any], path: Path) -> list[dict[str, Any]] | dict[str, list[Any]]:
    """Its columns; or the only list of objects in it, as in `{"version": 1, "data": [...]}`; or one row."""
    lists = {name: cells for name, cells in content.items() if isinstance(cells, list)}
    if len(lists) == 1 and (rows := next(iter(lists.values()))) and all(isinstance(row, dict) for row in rows):
        return rows
    if content and len(lists) == len(content):
        sizes = {name: len(cells) for name, cells in lists.items()}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise DataError(f"{path}: the arrays of its columns differ in length: {found}")
        return lists
    if all(isinstance(value, dict) for value in content.values()):
        raise DataError(f"{path} holds neither rows nor columns: {BY_INDEX if content else SHAPES}")
    return [content]


def _column_blocks(columns: dict[str, list[Any]], path: Path) -> Iterator[Table]:
    for start in range(0, len(next(iter(columns.values()))), BLOCK_ROWS):
        block = {name: cells[start : start + BLOCK_ROWS] for name, cells in columns.items()}
        yield build_table(str(path), block, {})
