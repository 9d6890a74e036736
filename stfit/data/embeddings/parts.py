"""A folder of parts: embeddings of a dataset, of which every part was written by itself, on whichever machine.

    part-00002-of-00008/
        embeddings.npy      [rows, dim], to be memory-mapped
        rows.parquet        `id` and kept columns; missing if ids are the numbers of the texts and nothing is kept
        part.json           what it was made from

The texts are numbered across all parts: a number within a part is written nowhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stfit.data.embeddings.matrix import read_rows
from stfit.data.embeddings.writers import WRITERS, EmbeddingRows, TableWriter, to_arrow, write_npy_header
from stfit.data.part import Part
from stfit.errors import DataError, RecipeError
from stfit.io.atomic import atomic_directory
from stfit.io.json_files import load_json, write_json
from stfit.lazy import lazy

if TYPE_CHECKING:
    from pyarrow import parquet
else:
    parquet = lazy("pyarrow.parquet")

EMBEDDINGS, ROWS, FACTS = "embeddings.npy", "rows.parquet", "part.json"
NAME = re.compile(r"part-(\d{5,})-of-(\d{5,})")
UNFINISHED = re.compile(rf"\.?{NAME.pattern}\..+|\.output\.lock")
"""Beside the folder of a part: the windows that it is made of, and what is about to be renamed."""
WINDOW_ROWS = 16_384
SHOWN = 5
ADVICE = "encode all parts of a folder alike, or choose a new folder"


class StoredPart(NamedTuple):
    folder: Path
    part: Part
    rows: int
    made: dict[str, Any]
    """What the embeddings were made from: equal for all parts of a folder, or None in a part without texts."""
    named: dict[str, str]
    """How to name some of it for people, who know no digests."""

    @property
    def values(self) -> np.ndarray:
        """[rows, dim], memory-mapped. Raises DataError if the file does not belong to the part."""
        try:
            values_nd: np.ndarray = np.load(self.folder / EMBEDDINGS, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder}: its embeddings can't be read ({error}): encode it again") from error
        if len(values_nd) != self.rows:
            raise DataError(f"{self.folder}: holds {len(values_nd)} embeddings of {self.rows} texts: encode it again")
        return values_nd


def part_folder(output: Path, part: Part) -> Path:
    return output / part.file_stem


def holds_parts(folder: Path) -> bool:
    return folder.is_dir() and any(NAME.fullmatch(path.name) for path in folder.iterdir())


def require_only_parts(folder: Path) -> None:
    """Raises RecipeError for an output that is a file, or holds anything else."""
    if folder.name == "-" or folder.suffix in WRITERS.keys() - {""}:
        raise RecipeError(f"{folder}: the output of a part is a folder, which will hold all parts")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if foreign := [name for name in names if not NAME.fullmatch(name) and not UNFINISHED.fullmatch(name)]:
        raise RecipeError(f"{folder} holds {foreign[0]}, which is no part of embeddings: choose a new folder")


def write_part(windows: Iterable[EmbeddingRows], stored: StoredPart) -> None:
    """`made["ids"]` is the column of the ids; None for numbers, which are not written."""
    has_ids = stored.made["ids"] is not None
    with atomic_directory(stored.folder) as scratch:
        with (scratch / EMBEDDINGS).open("wb") as file, TableWriter(scratch / ROWS) as writer:
            for window in windows:
                if not file.tell():
                    write_npy_header(file, window.values.dtype, (stored.rows, window.values.shape[1]))
                window.values.tofile(file)
                columns = ({"id": window.ids} if has_ids else {}) | window.columns
                if columns and window.ids:
                    writer.write(to_arrow(columns))
        facts = {"part": stored.part.number, "of": stored.part.count, "rows": stored.rows}
        write_json(scratch / FACTS, facts | {"made": stored.made, "named": stored.named})


def find_part(own: StoredPart) -> StoredPart | None:
    """The same part if it is there, made from the same."""
    if not own.folder.is_dir():
        return None
    stored = _load_facts(own.folder)
    return stored if (stored.part, stored.made) == (own.part, own.made) else None


def stored_parts(folder: Path) -> list[StoredPart]:
    """Those that are complete, in order. Raises DataError for one that can't be read."""
    return [_load_facts(path) for path in sorted(folder.glob("part-*")) if NAME.fullmatch(path.name)]


def _load_facts(folder: Path) -> StoredPart:
    try:
        facts = load_json(folder / FACTS)
        return StoredPart(folder, Part(facts["part"], facts["of"]), facts["rows"], facts["made"], facts["named"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{folder}: is no part of embeddings, or damaged ({error}): delete it, and encode again"
        ) from error


def require_same(folder: Path, own: StoredPart) -> None:
    """Raises RecipeError if another part of the folder was made from anything else; both are named."""
    for other in stored_parts(folder):
        if other.part.count != own.part.count:
            raise RecipeError(f"{folder} holds part {other.part}, which is no neighbor of part {own.part}: {ADVICE}")
        for key in own.made:
            if None not in (own.made[key], other.made[key]) and own.made[key] != other.made[key]:
                theirs, ours = (stored.named.get(key, json.dumps(stored.made[key])) for stored in (other, own))
                differ = f"part {other.part} was made with {key} {theirs}, and part {own.part} with {ours}"
                raise RecipeError(f"{folder}: {differ}: {ADVICE}")


def complete_parts(folder: Path) -> list[StoredPart]:
    """All parts in order. Raises DataError if some are missing, and names them."""
    parts = stored_parts(folder)
    require_same(folder, parts[0])
    count = parts[0].part.count
    there = {stored.part.number for stored in parts}
    if missing := [f"{number}/{count}" for number in range(1, count + 1) if number not in there]:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise DataError(f"{folder}: part {', '.join(missing[:SHOWN])}{more} missing: encode it with --part")
    return parts


def read_parts(parts: list[StoredPart]) -> Iterator[EmbeddingRows]:
    """Windows of all rows in order, with the numbers as they are stored."""
    if not any(stored.rows for stored in parts):
        yield EmbeddingRows([], {}, parts[0].values)  # a file of no rows still has their dimensions
        return
    start = 0
    for stored in parts:
        yield from _read_part(stored, start)
        start += stored.rows


def _read_part(stored: StoredPart, start: int) -> Iterator[EmbeddingRows]:
    values_nd = stored.values
    first = 0
    for size, cells in _row_blocks(stored):
        values = read_rows(values_nd, first, size)
        ids = cells.pop("id", None) or list(range(start + first, start + first + size))
        yield EmbeddingRows(ids, cells, values)
        first += size


def _row_blocks(stored: StoredPart) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """For each window, its number of rows, and their cells by column."""
    path = stored.folder / ROWS
    if not path.exists():
        yield from ((min(WINDOW_ROWS, stored.rows - first), {}) for first in range(0, stored.rows, WINDOW_ROWS))
        return
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):  # one iterator over all groups would keep each group in memory
            for batch in file.iter_batches(WINDOW_ROWS, row_groups=[group]):
                yield batch.num_rows, batch.to_pydict()
