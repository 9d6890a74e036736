"""JSON Lines: one object per line."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from stfit.data.reading.text_lines import in_blocks, line_error, open_bytes, read_lines
from stfit.data.source import ReadOptions
from stfit.data.table import Table, build_table


def read_json_lines(path: Path, options: ReadOptions) -> Iterator[Table]:
    with open_bytes(path) as file:
        yield from json_blocks(file, path)


def json_blocks(file: IO[bytes], path: Path) -> Iterator[Table]:
    """Blocks of an open file; blank lines are skipped, and a key that a row lacks is None. `path`: for messages."""
    for records in in_blocks(_parse_lines(file, path)):
        names = dict.fromkeys(chain.from_iterable(records))
        yield build_table(str(path), {name: [record.get(name) for record in records] for name in names}, {})


def _parse_lines(file: IO[bytes], path: Path) -> Iterator[dict[str, Any]]:
    for number, line in read_lines(file, path):
        if line.isspace():
            continue
        try:
            try:
                record = json.loads(line.decode())
            except ValueError:  # a byte order mark, say: json.loads guesses the encoding of bytes, which is slow
                record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise line_error(path, number, f"is not valid JSON: {reason}") from error
        if not isinstance(record, dict):
            raise line_error(path, number, 'is not a JSON object such as {"text": "...", "label": 0}')
        yield record
