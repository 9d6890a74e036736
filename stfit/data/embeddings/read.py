"""Files of embeddings, as `stfit encode` writes them: read in windows, so that a file may be larger than memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors

from stfit.data.embeddings.matrix import read_rows
from stfit.data.embeddings.parts import complete_parts, holds_parts, read_parts
from stfit.data.embeddings.writers import EmbeddingRows
from stfit.data.object_store import local_copy, openable
from stfit.data.reading.json_lines import parse_lines
from stfit.data.reading.packed_file import UNPACKING_ERRORS, open_bytes
from stfit.data.reading.text_lines import in_blocks, read_lines
from stfit.data.source import ReadOptions
from stfit.errors import DataError
from stfit.lazy import lazy
from stfit.paths import EMBEDDING_SUFFIXES, data_kind
from stfit.progress import task

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet
else:
    pa, pc, parquet = lazy("pyarrow"), lazy("pyarrow.compute"), lazy("pyarrow.parquet")

log = logging.getLogger("stfit")

WINDOW_ROWS = 16_384
UNREADABLE = (
    *UNPACKING_ERRORS,
    OSError,
    ValueError,
    LookupError,
    NotImplementedError,
    safetensors.SafetensorError,
    TokenError,  # numpy raises it for a header without an end
)
"""What damaged files raise; the errors of pyarrow are among them."""


class Embeddings(NamedTuple):
    dim: int
    windows: Iterator[EmbeddingRows]


def read_embeddings(path: Path, any_type: bool = False) -> Embeddings | None:
    """Those of a file, a folder of shards or one of parts, as float32; None if it holds no embeddings.

    `any_type`: as they are stored, in bytes too.

    Raises DataError.
    """
    path = _on_this_disk(path)
    if holds_parts(path):
        stored = read_parts(complete_parts(path))
    else:
        files = sorted(path.glob("*")) if path.is_dir() else [path]
        if not files or not all(file.is_file() and _holds_embeddings(file) for file in files):
            return None
        stored = chain.from_iterable(map(_read_file, files))
    windows = _numbered(stored, path, any_type)
    first = next(windows, None)
    if first is None:
        raise DataError(f"{path}: contains no embeddings")
    return Embeddings(first.values.shape[1], chain([first], windows))


def map_embeddings(path: Path) -> list[np.ndarray] | None:
    """The numbers of .npy files and of parts, memory-mapped; None for a format that has to be read."""
    path = _on_this_disk(path)
    if holds_parts(path):
        return [stored.values for stored in complete_parts(path)]
    return [np.load(path, mmap_mode="r")] if path.suffix == ".npy" else None


def _on_this_disk(path: Path) -> Path:
    """A copy of what is in an object store and has to be memory-mapped."""
    return local_copy(path) if holds_parts(path) or path.suffix in EMBEDDING_SUFFIXES else path


def _holds_embeddings(file: Path) -> bool:
    """Of a file that could hold texts as well, the schema or the first row tells."""
    kind = data_kind(file.name)
    if kind == ".parquet":
        with _as_data_error(file), openable(file) as source:
            schema = parquet.read_schema(source)
        listed = schema.field("embedding").type if "embedding" in schema.names else pa.null()
        return pa.types.is_primitive(getattr(listed, "value_type", pa.null()))
    if kind == ".jsonl":
        embedding = next(_records(file), {}).get("embedding")
        return isinstance(embedding, list) and all(isinstance(number, int | float) for number in embedding)
    return file.suffix in EMBEDDING_SUFFIXES


def _read_file(file: Path) -> Iterator[EmbeddingRows]:
    """Windows with the numbers as they are stored; without ids where the file has none."""
    with _as_data_error(file):
        yield from READERS[data_kind(file.name) or file.suffix](file)


@contextmanager
def _as_data_error(file: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise DataError(f"{file} can't be read: {error}") from error


def _numbered(windows: Iterator[EmbeddingRows], path: Path, any_type: bool) -> Iterator[EmbeddingRows]:
    """The windows, as float32 or in any type, with the ids 0, 1, ... where there are none."""
    dim = 0
    with task(f"reading {path.name}", unit="rows") as reading:
        for rows in windows:
            start = int(reading.done)
            if start == 0:
                dim = rows.values.shape[1]
                if not any_type:
                    _require_floats(rows.values.dtype, path)  # of all: JSON has zeros as whole numbers
            if rows.values.shape[1] != dim:
                raise DataError(
                    f"{path} holds embeddings of {dim} and of {rows.values.shape[1]} dimensions: encode again"
                )
            ids = rows.ids or list(range(start, start + len(rows.values)))
            yield EmbeddingRows(ids, rows.columns, rows.values if any_type else rows.values.astype(np.float32))
            reading.advance(len(rows.values))
    log.info("%d embeddings of %s", reading.done, path)


def _require_floats(dtype: np.dtype, path: Path) -> None:
    if dtype.kind != "f":
        raise DataError(
            f"{path} holds whole numbers ({dtype}), and only float32 and float16 can be searched: run `stfit encode` "
            "without --precision, or with --precision float16"
        )


def _read_npy(file: Path) -> Iterator[EmbeddingRows]:
    array_nd = np.load(file, mmap_mode="r")
    yield from _slices(partial(read_rows, array_nd), array_nd.shape)


def _read_safetensors(file: Path) -> Iterator[EmbeddingRows]:
    with safetensors.safe_open(file, "numpy") as tensors:
        if "embeddings" not in tensors.keys():  # noqa: SIM118 - it is no mapping
            raise ValueError("it has no tensor `embeddings`")
        tensor_nd = tensors.get_slice("embeddings")
        yield from _slices(lambda start, count: tensor_nd[start : start + count], tensor_nd.get_shape())


def _slices(read: Callable[[int, int], np.ndarray], shape: Sequence[int]) -> Iterator[EmbeddingRows]:
    if len(shape) != 2:
        raise ValueError(f"embeddings are an array of two dimensions, [rows, dim], and this one is {list(shape)}")
    if shape[0] and not shape[1]:
        raise ValueError("its embeddings have no dimensions")
    for start in range(0, shape[0], WINDOW_ROWS):
        yield EmbeddingRows([], {}, read(start, min(WINDOW_ROWS, shape[0] - start)))


def _read_parquet(file: Path) -> Iterator[EmbeddingRows]:
    with openable(file) as source, parquet.ParquetFile(source) as content:
        for group in range(content.num_row_groups):  # one iterator over all groups would keep each group in memory
            for batch in content.iter_batches(WINDOW_ROWS, row_groups=[group]):
                columns = {name: batch.column(name).to_pylist() for name in batch.schema.names if name != "embedding"}
                yield EmbeddingRows(columns.pop("id", []), columns, _matrix(batch.column("embedding")))


def _matrix(lists: pa.Array) -> np.ndarray:
    dims = pc.unique(pc.list_value_length(lists)).to_pylist()
    if len(dims) > 1 or None in dims:
        raise ValueError("its embeddings do not all have the same number of dimensions")
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), *dims)


def _read_json_lines(file: Path) -> Iterator[EmbeddingRows]:
    for records in in_blocks(_records(file)):
        values = np.array([record.pop("embedding") for record in records])
        names = dict.fromkeys(chain.from_iterable(records))
        columns = {name: [record.get(name) for record in records] for name in names}
        yield EmbeddingRows(columns.pop("id", []), columns, values)


def _records(file: Path) -> Iterator[dict[str, Any]]:
    with open_bytes(file) as lines:
        yield from parse_lines(read_lines(lines, file, ReadOptions()), file)


READERS: dict[str, Callable[[Path], Iterator[EmbeddingRows]]] = {
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
}
