"""Parquet files.

Repeated values cost next to nothing in parquet: a million rows of one number take ten bytes, and of one long text its
length. A file that would fill the memory is refused before its rows are read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from stfit.data.object_store import openable
from stfit.data.reading.packed_file import refuse_bomb
from stfit.data.reading.text_lines import BLOCK_ROWS
from stfit.data.source import ReadOptions
from stfit.data.table import Table, build_table
from stfit.errors import DataError
from stfit.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import compute, parquet
else:
    pa, compute, parquet = lazy("pyarrow"), lazy("pyarrow.compute"), lazy("pyarrow.parquet")

MIN_CELL_BYTES = 32
"""Minimum size of a cell as a Python object."""


def count_parquet_rows(path: Path) -> int:
    with openable(path) as source:
        return int(parquet.read_metadata(source).num_rows)


def read_parquet(path: Path, options: ReadOptions, rows: range | None = None) -> Iterator[Table]:
    """Blocks of a .parquet file, the first one an empty block with the column names; `rows`: of these rows alone."""
    with openable(path) as source, parquet.ParquetFile(source) as file:
        starts = [0, *accumulate(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))]
        rows = range(starts[-1]) if rows is None else rows
        groups = [i for i in range(file.num_row_groups) if starts[i] < rows.stop and rows.start < starts[i + 1]]
        refuse_parquet_bomb(path, groups)
        require_distinct(path, file.schema_arrow.names)
        class_names = class_names_of(file.schema_arrow)
        yield build_table(str(path), {name: [] for name in file.schema_arrow.names}, class_names)
        for group in groups:  # one iterator over all groups would keep each group in memory
            start = starts[group]
            for batch in file.iter_batches(BLOCK_ROWS, row_groups=[group], use_threads=False):
                first, last = max(rows.start - start, 0), min(rows.stop - start, batch.num_rows)
                if first < last:
                    yield build_table(str(path), batch.slice(first, last - first).to_pydict(), class_names)
                start += batch.num_rows


def require_distinct(path: Path, names: list[str]) -> None:
    """Raises DataError for two columns of one name: a table keeps the last one only."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path}: names the column `{twice[0]}` twice: rename one of the two")


def class_names_of(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> names of its classes, which `datasets` writes into the metadata of a file."""
    try:
        content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):  # another tool may write this key too
        return {}
    for key in ("info", "features"):
        content = content.get(key) if isinstance(content, dict) else None
    return {
        name: feature["names"]
        for name, feature in (content if isinstance(content, dict) else {}).items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }


def refuse_parquet_bomb(path: Path, row_groups: list[int] | None = None) -> None:
    """Raises DataError for a file whose rows, or those of these groups, are out of proportion to its size."""
    with openable(path) as source, parquet.ParquetFile(source) as file:
        row_groups = list(range(file.num_row_groups)) if row_groups is None else row_groups
        groups = [file.metadata.row_group(i) for i in row_groups]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
        refuse_bomb(path, sum(group.total_byte_size for group in groups))
        refuse_bomb(path, MIN_CELL_BYTES * sum(column.num_values for column in columns))
        repetitive = {
            column.path_in_schema
            for column in columns
            if column.physical_type == "BYTE_ARRAY" and column.total_compressed_size < column.num_values
        }
    if not repetitive:
        return
    unpacked = 0
    with openable(path) as source, parquet.ParquetFile(source, read_dictionary=sorted(repetitive)) as file:
        for group in row_groups:
            read = file.read_row_group(group, columns=sorted(repetitive))
            unpacked += sum(count_text_bytes(chunk) for column in read.columns for chunk in column.chunks)
            refuse_bomb(path, unpacked)


def count_text_bytes(array: pa.Array) -> int:
    """Bytes of all texts of a dictionary-encoded column, also within lists, maps and structs."""
    if pa.types.is_dictionary(array.type):
        if not any(is_text(array.type.value_type) for is_text in (pa.types.is_string, pa.types.is_large_string)):
            return 0
        return compute.sum(compute.take(compute.binary_length(array.dictionary), array.indices)).as_py() or 0
    if pa.types.is_struct(array.type):
        return sum(map(count_text_bytes, array.flatten()))
    if pa.types.is_map(array.type):
        return count_text_bytes(array.keys) + count_text_bytes(array.items)
    if not pa.types.is_nested(array.type):
        return 0
    if not hasattr(array, "flatten"):
        raise ValueError(f"a column has the type {array.type}: write it as another type")
    return count_text_bytes(array.flatten())
