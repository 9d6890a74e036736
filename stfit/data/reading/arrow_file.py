"""Arrow files (.arrow, .feather), as `datasets`, pandas and polars write them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from stfit.data.object_store import local_copy
from stfit.data.reading.packed_file import is_packed, open_bytes, read_bytes, refuse_bomb
from stfit.data.reading.parquet import MIN_CELL_BYTES, class_names_of, count_text_bytes, require_distinct
from stfit.data.reading.text_lines import BLOCK_ROWS
from stfit.data.source import ReadOptions
from stfit.data.table import Table, build_table
from stfit.errors import DataError
from stfit.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import ipc
else:
    pa, ipc = lazy("pyarrow"), lazy("pyarrow.ipc")

log = logging.getLogger("stfit")

FILE_MAGIC = b"ARROW1\0\0"
"""Begins a file of the format with a footer (Feather version 2)."""
FILE_END = b"ARROW1"
"""Ends such a file, after the footer."""
STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Ends a stream of batches. The format also allows to close the stream without it, which is how a cut one looks."""


def read_arrow_file(path: Path, options: ReadOptions) -> Iterator[Table]:
    """Blocks of a stream, or of a file with a footer, the first one an empty block with the column names."""
    unpacked = 0
    with _open_batches(path) as (schema, batches):
        require_distinct(path, schema.names)
        class_names = class_names_of(schema)
        yield build_table(str(path), {name: [] for name in schema.names}, class_names)
        for batch in batches:
            batch.validate(full=True)  # of damaged offsets, pyarrow would read other memory
            unpacked += _count_bytes(batch)
            refuse_bomb(path, unpacked)
            for start in range(0, batch.num_rows, BLOCK_ROWS):
                yield build_table(str(path), batch.slice(start, BLOCK_ROWS).to_pydict(), class_names)


@contextmanager
def _open_batches(path: Path) -> Iterator[tuple[pa.Schema, Iterable[pa.RecordBatch]]]:
    path = local_copy(path)
    with open_bytes(path) as file:
        if file.peek(len(FILE_MAGIC)).startswith(FILE_MAGIC):
            # By the footer: polars writes no stream that could be read from the start.
            with pa.BufferReader(read_bytes(path)) if is_packed(path) else pa.OSFile(str(path)) as content:
                _require_end(path, content)
                whole = ipc.open_file(content)
                yield whole.schema, map(whole.get_batch, range(whole.num_record_batches))
            return
        stream = _StreamWithEnd(file)
        with ipc.open_stream(stream) as batches:
            yield batches.schema, batches
        if stream.end != STREAM_END:
            log.warning("%s: has no end-of-stream mark: if it was cut off, its last rows are missing", path)


def _require_end(path: Path, content: pa.NativeFile) -> None:
    content.seek(content.size() - len(FILE_END))
    if content.read() != FILE_END:
        raise DataError(f"{path}: is cut off, its last rows are missing: copy or download it again")


class _StreamWithEnd:
    """A file for pyarrow to read, and the last bytes that it has read."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.end = file, b""

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.end = (self.end + content[-len(STREAM_END) :])[-len(STREAM_END) :]
        return content


def _count_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of the cells as Python objects, at least: a dictionary repeats texts at no cost."""
    cells = MIN_CELL_BYTES * batch.num_rows * batch.num_columns
    return max(cells, batch.nbytes) + sum(count_text_bytes(column) for column in batch.columns)
