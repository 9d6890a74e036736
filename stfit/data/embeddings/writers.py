"""Files of embeddings, each written as a whole from windows of rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from stfit.errors import DataError, RecipeError
from stfit.io.atomic import atomic_directory, atomic_file
from stfit.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet
else:
    pa, pc, parquet = lazy("pyarrow"), lazy("pyarrow.compute"), lazy("pyarrow.parquet")


@dataclass(frozen=True)
class EmbeddingRows:
    """Embeddings [rows, dim] with their ids, and what is written beside them."""

    ids: list[Any]
    columns: dict[str, list[Any]]
    values: np.ndarray

    def take(self, index: np.ndarray) -> EmbeddingRows:
        ids, *columns = ([cells[i] for i in index.tolist()] for cells in (self.ids, *self.columns.values()))
        return EmbeddingRows(ids, dict(zip(self.columns, columns, strict=True)), self.values[index])

    def to_arrow(self) -> pa.Table:
        flat = pa.array(np.ascontiguousarray(self.values).reshape(-1))
        embedding = pa.FixedSizeListArray.from_arrays(flat, self.values.shape[1])
        return to_arrow({"id": self.ids} | self.columns).append_column("embedding", embedding)


def to_arrow(columns: dict[str, list[Any]]) -> pa.Table:
    return pa.table({name: _to_array(name, cells) for name, cells in columns.items()})


def _to_array(name: str, cells: list[Any]) -> pa.Array:
    """Of text where all cells are missing: another window may have some."""
    try:
        array = pa.array(cells)
    except pa.ArrowException as error:
        raise DataError(f"column `{name}` can't be kept: {error}") from error
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _write_numbers(write_header: Callable[..., None], windows: Iterable[EmbeddingRows], path: Path, count: int) -> None:
    with path.open("wb") as file:
        for rows in windows:
            if not file.tell():
                write_header(file, rows.values.dtype, (count, rows.values.shape[1]))
            rows.values.tofile(file)


def write_npy_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, int]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def _safetensors_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, int]) -> None:
    """Of the tensor `embeddings` (https://github.com/huggingface/safetensors#format)."""
    name = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8"}[dtype.name]
    tensor = {"dtype": name, "shape": shape, "data_offsets": [0, math.prod(shape) * dtype.itemsize]}
    header = json.dumps({"embeddings": tensor}).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)


class TableWriter:
    """Writes tables into a parquet file, which has the types of the first one; without a table, there is no file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: parquet.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        self._writer = self._writer or parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(_as_first(table, self._writer.schema))


def _write_parquet(windows: Iterable[EmbeddingRows], path: Path, count: int) -> None:
    with TableWriter(path) as writer:
        for rows in windows:
            writer.write(rows.to_arrow())


def _as_first(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """With the types of the first window. Raises DataError if a column holds others."""
    try:
        return table.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        differing = [field.name for field in schema if table.schema.field(field.name).type != field.type]
        raise DataError(f"column `{differing[0]}` can't be kept: it holds values of several types ({error})") from error


def _write_json_lines(windows: Iterable[EmbeddingRows], path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for rows in windows:
            table = rows.to_arrow()
            digits = table.column("embedding").combine_chunks()
            lists = pa.ListArray.from_arrays(
                np.arange(len(digits) + 1, dtype=np.int32) * digits.type.list_size, digits.flatten().cast(pa.string())
            )
            for index, numbers in enumerate(pc.binary_join(lists, ",").to_pylist()):
                head = {"id": rows.ids[index]} | {name: cells[index] for name, cells in rows.columns.items()}
                file.write(f'{json.dumps(head, ensure_ascii=False)[:-1]}, "embedding": [{numbers}]}}\n')


def _write_shards(windows: Iterable[EmbeddingRows], path: Path, count: int) -> None:
    for number, rows in enumerate(windows):
        parquet.write_table(rows.to_arrow(), path / f"part-{number:05d}.parquet")


JSON_CHARACTERS = 12
"""Of a number in a .jsonl file, about."""

WRITERS: dict[str, Callable[[Iterable[EmbeddingRows], Path, int], None]] = {
    ".npy": partial(_write_numbers, write_npy_header),
    ".safetensors": partial(_write_numbers, _safetensors_header),
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
    "": _write_shards,
}
"""Suffix of the output -> its writer; no suffix is a folder."""


def check_suffix(path: Path) -> None:
    """Raises RecipeError for an unknown suffix, and for a folder that holds more than shards."""
    if path.suffix not in WRITERS or path.name == "-":  # who writes `-o -` means stdout
        raise RecipeError(f"{path}: the output must be a .npy, .safetensors, .parquet or .jsonl file, or a folder")
    if path.is_dir() and (path.suffix or any(shard.suffix != ".parquet" for shard in path.iterdir())):
        raise RecipeError(f"{path} is a folder with files other than shards: choose a new folder, or a file")


def check_columns(names: Sequence[str], path: Path) -> None:
    """Raises RecipeError for an output without columns, and for a name that is taken."""
    if names and path.suffix in (".npy", ".safetensors"):
        raise RecipeError(f"{path}: such a file holds numbers alone: write {', '.join(names)} to .parquet or .jsonl")
    if taken := [name for name in names if name in ("id", "embedding") or names.count(name) > 1]:
        raise RecipeError(f"{path}: the column `{taken[0]}` is written already: keep another")


def bytes_per_row(precision: str, dim: int, suffix: str = "") -> int:
    """Of the numbers alone."""
    sizes = {"float32": 4 * dim, "float16": 2 * dim, "int8": dim, "uint8": dim}
    return JSON_CHARACTERS * dim if suffix == ".jsonl" else sizes.get(precision, dim // 8)


def write_output(windows: Iterable[EmbeddingRows], path: Path, count: int) -> None:
    """The output as a whole, in the place of an earlier one. Raises ResourceError, and then keeps the earlier one."""
    with atomic_file(path) if path.suffix else atomic_directory(path) as temporary:
        WRITERS[path.suffix](windows, temporary, count)
