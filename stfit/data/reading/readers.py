"""Files of rows: JSON Lines, delimited text and parquet, plain or gzipped.

Text is read line by line with a bound on the length of a line, so that a small gzip that unpacks to one line of
gigabytes is an error and not the end of the machine's memory.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from stfit.data.source import ReadOptions
from stfit.data.table import Table, build_table, one_column
from stfit.errors import DataError, Problem
from stfit.lazy import lazy
from stfit.paths import DATA_SUFFIXES

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import compute, parquet
else:
    pa, compute, parquet = lazy("pyarrow"), lazy("pyarrow.compute"), lazy("pyarrow.parquet")

LONGEST_LINE = 64 * 2**20
"""Characters (bytes in JSON Lines) of one line, unpacked."""
MOST_UNPACKED = 200
"""Times that a packed file may grow: text grows 3 to 10 times, the same line over and over 1000 times."""
LITTLE = 256 * 2**20
"""Bytes that every file may unpack to."""
CELL = 32
"""Bytes that a cell takes at least, once it is an object of Python."""


def read_file(path: Path, options: ReadOptions) -> Table:
    """The rows of one file. Raises DataError with the line where it can't be read."""
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    try:
        if suffix == "jsonl":
            return build_table(str(path), _read_json_lines(path), {})
        if suffix in ("csv", "tsv"):
            return build_table(str(path), _read_delimited(path, options, "," if suffix == "csv" else "\t"), {})
        if suffix == "parquet":
            return _read_parquet(path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    raise DataError(f"{path} is no kind of file that stfit reads: use one of {', '.join(DATA_SUFFIXES)}")


def _read_json_lines(path: Path) -> dict[str, list[Any]]:
    """Columns of a file with one JSON object per line; blank lines are skipped."""
    with open_bytes(path) as file:
        return columns_of(list(json_records(file, path)))


def columns_of(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Column -> its cells, None where a record has no such key."""
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


def json_records(file: IO[bytes], path: Path) -> Iterator[dict[str, Any]]:
    """The objects of JSON Lines, one after the other."""
    for number, line in bounded_lines(file, path):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise at_line(path, number, f"is not valid JSON: {reason}") from error
        if not isinstance(record, dict):
            raise at_line(path, number, 'is not a JSON object like {"text": "...", "label": 0}')
        yield record


def _read_delimited(path: Path, options: ReadOptions, delimiter: str) -> dict[str, list[Any]]:
    """Columns of a .csv or .tsv file; every cell is a str."""
    names, *records = delimited_records(path, options, delimiter)
    return {name: [record[i] for record in records] for i, name in enumerate(names)}


def delimited_records(path: Path, options: ReadOptions, delimiter: str) -> Iterator[list[str]]:
    """The names of the columns (none where the file is empty), then the fields of one row after the other."""
    csv.field_size_limit(LONGEST_LINE)  # the module's default refuses texts over 128 KiB
    number = 0
    named = isinstance(options.header, list)  # and then names the first fields: a line may have more
    try:
        with _open_text(path, options.encoding) as file:
            reader = csv.reader(
                (line for _, line in bounded_lines(file, path)),
                delimiter=options.delimiter or delimiter,
                quoting=csv.QUOTE_MINIMAL if options.quoting else csv.QUOTE_NONE,
                strict=True,
            )
            records = filter(None, reader)
            first = next(records, [])
            names = options.header if isinstance(options.header, list) else first
            if options.header is False:
                names = [f"column_{i}" for i in range(1, len(first) + 1)]
            if len(set(names)) != len(names):
                raise at_line(path, 1, f"names a column twice: {', '.join(names)}")
            yield names
            for record in records if options.header is True else chain([first] if first else [], records):
                number = reader.line_num
                if len(record) < len(names) or (len(record) > len(names) and not named):
                    hint = one_column(names) or ", ".join(names)
                    raise at_line(path, number, f"has {len(record)} fields, expected {len(names)}: {hint}")
                yield record
    except csv.Error as error:
        hint = "if double quotes are plain characters in this file, set `read: {quoting: false}`"
        raise at_line(path, reader.line_num, f"is not valid: {error}; {hint}") from error
    except (UnicodeError, LookupError) as error:
        raise at_line(path, number + 1, f"or one soon after it is not {options.encoding}: {error}") from error


def _read_parquet(path: Path) -> Table:
    """A parquet file; the class names that `datasets` writes into its metadata are kept."""
    try:
        refuse_parquet_bomb(path)
        arrow = parquet.read_table(path, partitioning=None)
    except ValueError as error:  # ArrowInvalid
        raise DataError(f"{path} can't be read: {error}") from error
    return build_table(str(path), arrow.to_pydict(), class_names(path))


def class_names(path: Path) -> dict[str, list[str]]:
    """Column -> names of its classes, where `datasets` has written them into a parquet file."""
    written = json.loads((parquet.read_schema(path).metadata or {}).get(b"huggingface", b"{}"))
    features = written.get("info", {}).get("features", {})
    return {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and "names" in feature
    }


def open_bytes(path: Path) -> IO[bytes]:
    """A file, unpacked where its name ends in .gz."""
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def refuse_parquet_bomb(path: Path) -> None:
    """Raise DataError for a parquet file that says far more than it holds.

    Repeated values cost next to nothing there: a million rows of one number ten bytes, of one long text its length.
    """
    with parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
        _refuse_bomb(path, sum(group.total_byte_size for group in groups))
        _refuse_bomb(path, CELL * sum(column.num_values for column in columns))
        repetitive = {
            column.path_in_schema
            for column in columns
            if column.physical_type == "BYTE_ARRAY" and column.total_compressed_size < column.num_values
        }
    if not repetitive:
        return
    unpacked = 0
    with parquet.ParquetFile(path, read_dictionary=sorted(repetitive)) as file:
        for group in range(file.num_row_groups):
            read = file.read_row_group(group, columns=sorted(repetitive))
            unpacked += sum(map(_bytes_of_texts, (chunk for column in read.columns for chunk in column.chunks)))
            _refuse_bomb(path, unpacked)


def _bytes_of_texts(array: pa.Array) -> int:
    """Bytes of all texts of a column that was read as numbers of its distinct texts, also within lists and structs."""
    if pa.types.is_dictionary(array.type):
        return compute.sum(compute.take(compute.binary_length(array.dictionary), array.indices)).as_py() or 0
    if pa.types.is_struct(array.type):
        return sum(map(_bytes_of_texts, array.flatten()))
    return _bytes_of_texts(array.flatten()) if pa.types.is_nested(array.type) else 0


def _refuse_bomb(path: Path, unpacked: int) -> None:
    """Raise DataError for a file that grows out of all proportion."""
    packed = path.stat().st_size
    if unpacked > max(LITTLE, MOST_UNPACKED * packed):
        raise DataError(
            f"{path}: its {packed} bytes unpack to more than {unpacked >> 20} MiB, {MOST_UNPACKED} times as much: "
            "this is no data set of texts"
        )


def _open_text(path: Path, encoding: str) -> IO[str]:
    """A text file, unpacked where its name ends in .gz; a byte order mark is no part of the text."""
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def bounded_lines(file: IO[str] | IO[bytes], path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers from 1, and lines."""
    number = unpacked = 0
    checked = LITTLE
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        unpacked += len(line)
        if unpacked > checked and path.suffix == ".gz":
            _refuse_bomb(path, unpacked)
            checked *= 2
        if len(line) > LONGEST_LINE:
            raise at_line(
                path, number, f"is longer than {LONGEST_LINE // 2**20} MiB: is this a file of one row per line?"
            )
        yield number, line


def at_line(path: Path, number: int, what: str) -> DataError:
    """An error that names a line."""
    return DataError(Problem(f"line {number} {what}", "unreadable-line", str(path), number))
