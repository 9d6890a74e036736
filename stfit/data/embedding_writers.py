"""Embeddings on disk: parts that survive an interruption, and output files made from them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import safetensors.numpy

from stfit.errors import RecipeError, ResourceError
from stfit.io.atomic import atomic_cache_entry
from stfit.io.hashing import hash_buffers
from stfit.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet
else:
    pa, pc, parquet = lazy("pyarrow"), lazy("pyarrow.compute"), lazy("pyarrow.parquet")


TENSORS = ("values", "names")
"""Of a part."""


@dataclass(frozen=True)
class EmbeddingRows:
    """Embeddings [rows, dim] with their ids and, if requested, their texts."""

    ids: list[Any]
    texts: list[str] | None
    values: np.ndarray

    def to_arrow(self) -> pa.Table:
        flat = pa.array(np.ascontiguousarray(self.values).reshape(-1))
        columns = {"id": pa.array(self.ids)}
        if self.texts is not None:
            columns["text"] = pa.array(self.texts, pa.string())
        return pa.table(columns | {"embedding": pa.FixedSizeListArray.from_arrays(flat, self.values.shape[1])})


@dataclass(frozen=True)
class Parts:
    """A folder of parts, numbered from 0, each complete or absent, with the digest of its inputs.

    Parts are safetensors files because pyarrow imports pandas, which delays the first part.
    """

    folder: Path

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.safetensors"

    def has(self, number: int, digest: str) -> bool:
        """Whether the part was made from these inputs, and its values are those that were written."""
        try:
            with safetensors.safe_open(self.path(number), "numpy") as file:
                metadata = file.metadata() or {}
                return metadata.get("digest") == digest and metadata.get("values") == _hash_tensors(
                    {name: file.get_tensor(name) for name in TENSORS}
                )
        except (OSError, safetensors.SafetensorError):  # missing or damaged
            return False

    def write(self, number: int, digest: str, rows: EmbeddingRows) -> None:
        names = np.frombuffer(json.dumps([rows.ids, rows.texts], default=str).encode(), dtype=np.uint8)
        tensors = {"values": np.ascontiguousarray(rows.values), "names": names}
        with atomic_cache_entry(self.path(number)) as temporary:
            safetensors.numpy.save_file(tensors, temporary, {"digest": digest, "values": _hash_tensors(tensors)})

    def read(self, number: int) -> EmbeddingRows:
        tensors = safetensors.numpy.load_file(self.path(number))
        ids, texts = json.loads(tensors["names"].tobytes())
        return EmbeddingRows(ids, texts, tensors["values"])


def _hash_tensors(tensors: dict[str, np.ndarray]) -> str:
    return hash_buffers(*(part for name in TENSORS for part in (tensors[name].dtype.str.encode(), tensors[name])))


def _write_numbers(write_header: Callable[..., None], parts: Iterable[EmbeddingRows], path: Path, count: int) -> None:
    with path.open("wb") as file:
        for rows in parts:
            if not file.tell():
                write_header(file, rows.values.dtype, (count, rows.values.shape[1]))
            rows.values.tofile(file)


def _npy_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, int]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def _safetensors_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, int]) -> None:
    """Of the tensor `embeddings` (https://github.com/huggingface/safetensors#format)."""
    name = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8"}[dtype.name]
    tensor = {"dtype": name, "shape": shape, "data_offsets": [0, math.prod(shape) * dtype.itemsize]}
    header = json.dumps({"embeddings": tensor}).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)


def _write_parquet(parts: Iterable[EmbeddingRows], path: Path, count: int) -> None:
    writer = None
    for rows in parts:
        table = rows.to_arrow()
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _write_json_lines(parts: Iterable[EmbeddingRows], path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for rows in parts:
            table = rows.to_arrow()
            digits = table.column("embedding").combine_chunks()
            lists = pa.ListArray.from_arrays(
                np.arange(len(digits) + 1, dtype=np.int32) * digits.type.list_size, digits.flatten().cast(pa.string())
            )
            for index, numbers in enumerate(pc.binary_join(lists, ",").to_pylist()):
                head = {"id": rows.ids[index]} | ({"text": rows.texts[index]} if rows.texts is not None else {})
                file.write(f'{json.dumps(head, ensure_ascii=False)[:-1]}, "embedding": [{numbers}]}}\n')


def _write_shards(parts: Iterable[EmbeddingRows], path: Path, count: int) -> None:
    path.mkdir()
    for number, rows in enumerate(parts):
        parquet.write_table(rows.to_arrow(), path / f"part-{number:05d}.parquet")


WRITERS: dict[str, Callable[[Iterable[EmbeddingRows], Path, int], None]] = {
    ".npy": partial(_write_numbers, _npy_header),
    ".safetensors": partial(_write_numbers, _safetensors_header),
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
    "": _write_shards,
}
"""Suffix of the output -> its writer; no suffix is a folder."""


def check_output(path: Path) -> None:
    """Raises RecipeError for an unknown suffix, ResourceError if the output can't be written there."""
    if path.suffix not in WRITERS:
        raise RecipeError(f"{path}: the output must be a .npy, .safetensors, .parquet or .jsonl file, or a folder")
    if not path.parent.is_dir():
        raise ResourceError(f"{path}: can't be written: the folder {path.parent} does not exist")
    if path.is_dir() and (path.suffix or any(shard.suffix != ".parquet" for shard in path.iterdir())):
        raise RecipeError(f"{path} is a folder with files other than shards: choose a new folder, or a file")


def write_output(parts: Iterable[EmbeddingRows], scratch: Path, path: Path, count: int) -> None:
    if scratch.is_dir():
        shutil.rmtree(scratch)
    WRITERS[path.suffix](parts, scratch, count)
    if path.is_dir():
        shutil.rmtree(path)
    scratch.replace(path)
