"""The rows of a dataset, or its texts, one block after the other, so that its size does not matter."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from stfit.data.mapping.examples import text_problems
from stfit.data.mapping.selectors import Selector, expand, parse_selector
from stfit.data.reading.load_table import (
    is_saved,
    load_table,
    open_split,
    read_label_names,
    refuse_hub_keys,
    require_split,
    split_files,
)
from stfit.data.reading.readers import (
    at_line,
    bounded_lines,
    class_names,
    columns_of,
    delimited_records,
    json_records,
    open_bytes,
    refuse_parquet_bomb,
)
from stfit.data.reading.split import is_whole
from stfit.data.source import Source, is_remote
from stfit.data.table import Table, build_table, name_rows
from stfit.errors import DataError, Problem, RecipeError
from stfit.io.hashing import hash_file
from stfit.lazy import lazy

if TYPE_CHECKING:
    from pyarrow import parquet
else:
    parquet = lazy("pyarrow.parquet")

BLOCK_ROWS = 1024

STDIN = "-"
"""The dataset that is read from standard input."""


@dataclass(frozen=True)
class Texts:
    """Some texts that stand next to each other in a dataset."""

    ids: list[Any]
    texts: list[str]
    row: int
    """Rows of the dataset up to the last of them."""

    def __len__(self) -> int:
        return len(self.texts)


def stream_texts(source: Source, column: str | None, id_column: str | None) -> Iterator[Texts]:
    """Every text that the selector `column` takes, in order, with its id: its number from 0, or of `id_column`.

    Without `column`, the column `text`, or the only one that holds text. Raises RecipeError where that is none, or the
    selector can't be read; DataError where a row has no text there.
    """
    selector: Selector | None = None
    count = 0
    for table in open_tables(source, as_json=column is not None)():
        selector = selector or _choose_selector(table, column)
        (cells,), parents = expand(table, [selector], None)
        rows = table.row[parents]
        problems = text_problems({"text": cells}, rows, {"text": [selector]})
        if missing := [row for cell, row in zip(cells, rows.tolist(), strict=True) if cell is None]:
            message = f"`{selector.text}` has no text in {name_rows(missing)}"
            problems.append(Problem(message, "no-text", table.origin, row=missing[0]))
        if problems:
            raise DataError(problems)
        numbers = list(range(count, count + len(cells)))
        ids = [table.cells(id_column)[parent] for parent in parents] if id_column else numbers
        count += len(cells)
        yield Texts(ids, cells, int(table.row[-1]))


def _choose_selector(table: Table, column: str | None) -> Selector:
    """The selector as written, else the column that has to be meant."""
    known = list(table.columns)
    if column is not None:
        selector = parse_selector(column, known)
        table.cells(selector.column)
        return selector
    texts = [name for name, cells in table.columns.items() if any(isinstance(cell, str) for cell in cells)]
    if "text" in texts or len(texts) == 1:
        return Selector("text", "text") if "text" in texts else Selector(texts[0], texts[0])
    raise RecipeError(f"{table.origin}: which column holds the texts? Say --column: {', '.join(known)}")


def open_tables(source: Source, as_json: bool = False) -> Callable[[], Iterator[Table]]:
    """Where the rows of a split are, found once: each call reads them from the first on, in blocks, numbered through.

    `as_json`: whether standard input is JSON Lines, not text. Raises DataError where something can't be read, HubError
    where the Hub can't be reached.
    """
    if source.dataset == STDIN:
        read = partial(_text_blocks, sys.stdin.buffer, Path("stdin"), ".jsonl" if as_json else ".txt")
        return lambda: _numbered(build_table(STDIN, columns, {}) for columns in read())
    if not is_whole(source.split):
        return lambda: _numbered([load_table(source)])
    files = files_of(source)
    if files is None:
        blocks = open_split(source)
        return lambda: _numbered(blocks())
    refuse_hub_keys(source)
    return lambda: _numbered(_file_tables(files, source))


def _numbered(blocks: Iterable[Table]) -> Iterator[Table]:
    """The blocks that hold rows, numbered through."""
    start = 0
    for table in blocks:
        if len(table):
            yield replace(table, row=np.arange(start + 1, start + len(table) + 1))
        start += len(table)


def _file_tables(files: list[Path], source: Source) -> Iterator[Table]:
    """The rows of all files of a split, some at a time."""
    origin = str(files[0]) if len(files) == 1 else source.dataset
    names = read_label_names(files[0].parent / "labels.json")
    for path in files:
        with _readable(path):
            own = class_names(path) if path.suffix == ".parquet" else {}
        for columns in _file_blocks(path, source):
            yield build_table(origin, columns, own | names)


def files_of(source: Source) -> list[Path] | None:
    """The files of a split, in order; None for standard input, a dataset of the Hub, or one saved to disk.

    Raises DataError where there is no such file or split.
    """
    if source.dataset == STDIN:
        return None
    path = Path(source.dataset)
    if is_remote(source.dataset) or is_saved(path):
        return None
    splits = split_files(path)
    require_split(source.split, splits, source.dataset)
    return splits[source.split]


def _file_blocks(path: Path, source: Source) -> Iterator[dict[str, list[Any]]]:
    """Columns of each block of one file."""
    suffix = Path(path.name.removesuffix(".gz")).suffix
    with _readable(path):
        if suffix == ".parquet":
            refuse_parquet_bomb(path)
            with parquet.ParquetFile(path) as file:
                for group in range(file.num_row_groups):  # asked for all at once, it keeps what it has read of each
                    batches = file.iter_batches(BLOCK_ROWS, row_groups=[group], use_threads=False)
                    yield from (batch.to_pydict() for batch in batches)
        elif suffix in (".csv", ".tsv"):
            records = delimited_records(path, source.read, "," if suffix == ".csv" else "\t")
            names = next(records, [])
            while block := list(islice(records, BLOCK_ROWS)):
                yield {name: [record[i] for record in block] for i, name in enumerate(names)}
        else:
            with open_bytes(path) as lines:
                yield from _text_blocks(lines, path, suffix)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What goes wrong in reading a file, as a DataError."""
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError) as error:  # the last is pyarrow's
        raise DataError(f"{path} can't be read: {error}") from error


def _text_blocks(file: IO[bytes], path: Path, suffix: str) -> Iterator[dict[str, list[Any]]]:
    """Columns of each block of lines: JSON objects, or texts."""
    if suffix == ".jsonl":
        records = json_records(file, path)
        while block := list(islice(records, BLOCK_ROWS)):
            yield columns_of(block)
    elif suffix == ".txt":
        texts = _text_lines(file, path)
        while lines := list(islice(texts, BLOCK_ROWS)):
            yield {"text": lines}
    else:
        raise DataError(f"{path} is no kind of file that stfit reads: use .txt, .jsonl, .csv, .tsv or .parquet")


def _text_lines(file: IO[bytes], path: Path) -> Iterator[str]:
    """Lines of UTF-8 text, without their line ends."""
    for number, line in bounded_lines(file, path):
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise at_line(path, number, f"is not UTF-8: {error.reason} at byte {error.start} of the line") from error


def count_rows(source: Source) -> int | None:
    """Rows of the split, for an estimate of the time left: lines count as rows. None where only reading would tell."""
    files = files_of(source)
    return None if files is None else sum(map(_count_of_file, files))


def _count_of_file(path: Path) -> int:
    """Rows of a parquet file, lines of any other."""
    if path.suffix == ".parquet":
        return int(parquet.read_metadata(path).num_rows)
    with open_bytes(path) as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))


def fingerprint_of(source: Source) -> str | None:
    """sha256 of the files of a split, which is fast beside reading their rows; None for what the Hub has."""
    if is_remote(source.dataset):
        return None
    files = files_of(source)
    files = [*files, files[0].parent / "labels.json"] if files else sorted(Path(source.dataset).rglob("*"))
    digest = sha256()
    for path in filter(Path.is_file, files):
        digest.update(f"{path.stat().st_size} ".encode())
        hash_file(path, digest)
    return digest.hexdigest()
