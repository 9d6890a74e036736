"""Delimited text (.csv, .tsv): every cell is a str."""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from stfit.data.reading.packed_file import open_bytes
from stfit.data.reading.text_lines import MAX_LINE, in_blocks, line_error, read_lines
from stfit.data.source import ReadOptions, read_hint
from stfit.data.table import Table, build_table, delimiter_hint
from stfit.paths import data_kind

SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?")
"""A first line that tells Excel the delimiter, and is no row."""

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_delimited(path: Path, options: ReadOptions) -> Iterator[Table]:
    """Blocks of a .csv or .tsv file, the first one an empty block with the column names."""
    records = _parse_records(path, options)
    names = next(records)
    for block in chain([[]], in_blocks(records)):
        yield build_table(str(path), {name: [record[i] for record in block] for i, name in enumerate(names)}, {})


def _parse_records(path: Path, options: ReadOptions) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_LINE)  # the default of 128 KiB is too small for texts
    may_be_longer = isinstance(options.header, list)  # a list names the first fields only
    with open_bytes(path) as file:
        lines = (line for _, line in read_lines(file, path, options, newline=""))
        first_line = next(lines, "")
        told = SEPARATOR_LINE.fullmatch(first_line)
        skipped = 1 if told else 0
        reader = csv.reader(
            lines if told else chain([first_line], lines),
            delimiter=options.delimiter or (told[1] if told else DELIMITERS[data_kind(path.name)]),
            quoting=csv.QUOTE_MINIMAL if options.quoting else csv.QUOTE_NONE,
            strict=True,
        )
        try:
            records = filter(None, reader)
            first = next(records, [])
            names = options.header if isinstance(options.header, list) else first
            if options.header is False:
                names = [f"column_{i}" for i in range(1, len(first) + 1)]
            if len(set(names)) != len(names):
                hint = f"if it is a row and no header, {read_hint('header', 'false')}"
                raise line_error(path, 1, f"names a column twice: {', '.join(names)}; {hint}")
            yield names
            for record in records if options.header is True else chain([first] if first else [], records):
                if len(record) < len(names) or (len(record) > len(names) and not may_be_longer):
                    hint = delimiter_hint(names) or ", ".join(names)
                    message = f"has {len(record)} fields, expected {len(names)}: {hint}"
                    raise line_error(path, reader.line_num + skipped, message)
                yield record
        except csv.Error as error:
            hint = f"if double quotes are plain characters in this file, {read_hint('quoting', 'false')}"
            raise line_error(path, reader.line_num + skipped, f"is not valid: {error}; {hint}") from error
