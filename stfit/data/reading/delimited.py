"""Delimited text (.csv, .tsv): every cell is a str."""

import codecs
import csv
from collections.abc import Iterator
from io import TextIOWrapper
from itertools import chain
from pathlib import Path

from stfit.data.reading.text_lines import MAX_LINE, in_blocks, line_error, open_bytes, read_lines
from stfit.data.source import ReadOptions
from stfit.data.table import Table, build_table, delimiter_hint


def read_delimited(path: Path, options: ReadOptions) -> Iterator[Table]:
    """Blocks of a .csv or .tsv file, the first one an empty block with the column names."""
    records = _parse_records(path, options)
    names = next(records)
    for block in chain([[]], in_blocks(records)):
        yield build_table(str(path), {name: [record[i] for record in block] for i, name in enumerate(names)}, {})


def _parse_records(path: Path, options: ReadOptions) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_LINE)  # the default of 128 KiB is too small for texts
    number = 0
    may_be_longer = isinstance(options.header, list)  # a list names the first fields only
    try:
        encoding = "utf-8-sig" if codecs.lookup(options.encoding).name == "utf-8" else options.encoding
        with open_bytes(path) as raw, TextIOWrapper(raw, encoding, newline="") as file:
            reader = csv.reader(
                (line for _, line in read_lines(file, path)),
                delimiter=options.delimiter or ("\t" if path.name.endswith((".tsv", ".tsv.gz")) else ","),
                quoting=csv.QUOTE_MINIMAL if options.quoting else csv.QUOTE_NONE,
                strict=True,
            )
            records = filter(None, reader)
            first = next(records, [])
            names = options.header if isinstance(options.header, list) else first
            if options.header is False:
                names = [f"column_{i}" for i in range(1, len(first) + 1)]
            if len(set(names)) != len(names):
                raise line_error(path, 1, f"names a column twice: {', '.join(names)}")
            yield names
            for record in records if options.header is True else chain([first] if first else [], records):
                number = reader.line_num
                if len(record) < len(names) or (len(record) > len(names) and not may_be_longer):
                    hint = delimiter_hint(names) or ", ".join(names)
                    raise line_error(path, number, f"has {len(record)} fields, expected {len(names)}: {hint}")
                yield record
    except csv.Error as error:
        hint = "if double quotes are plain characters in this file, set `read: {quoting: false}`"
        raise line_error(path, reader.line_num, f"is not valid: {error}; {hint}") from error
    except (UnicodeError, LookupError) as error:
        raise line_error(path, number + 1, f"or one soon after it is not {options.encoding}: {error}") from error
