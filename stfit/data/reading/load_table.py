"""A dataset as tables: all rows of a split at once, or block by block."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from stfit.data.object_store import path_of
from stfit.data.part import Part
from stfit.data.reading.beir import JUDGMENTS, join_pairs
from stfit.data.reading.hub import Splits, hub_splits
from stfit.data.reading.json_lines import json_blocks
from stfit.data.reading.local_files import files_by_split, is_document, local_files, only_split, read_files
from stfit.data.reading.part_of_files import count_portion_rows, portions, read_portion, slice_blocks
from stfit.data.reading.saved_to_disk import is_saved, read_saved_part, saved_splits
from stfit.data.reading.split import is_whole, parse_split, require_split, rows_needed, slice_rows, split_in
from stfit.data.reading.text_lines import text_blocks
from stfit.data.source import STDIN, TableSource, is_remote
from stfit.data.table import Table, build_table, concatenate
from stfit.errors import Problem, RecipeError, at_key
from stfit.paths import NO_STDIN
from stfit.progress import task


def find_splits(source: TableSource) -> Splits:
    """The splits of a dataset. Raises DataError, HubError, or RecipeError for a path with keys of a Hub dataset."""
    if source.dataset == STDIN:
        raise RecipeError(Problem(f"`{STDIN}` {NO_STDIN}", RecipeError.code, key="dataset"))
    if is_remote(source.dataset):
        return hub_splits(source)
    for key in ("config", "files", "revision"):
        if getattr(source, key) is not None:
            message = f"`{key}` is for datasets on the Hub, and {source.dataset} is a path: remove it"
            raise RecipeError(Problem(message, RecipeError.code, key=key))
    path = path_of(source.dataset)
    if is_saved(path):
        return saved_splits(path)
    # A file is read whole, so that its errors don't depend on the slice.
    files = files_by_split(source.dataset)

    def read(name: str) -> Iterator[Table]:
        if "corpus" not in files or files[name][0].parent.name != JUDGMENTS:
            return read_files(files[name], source)
        paths = (files[name][:1], files["queries"], files["corpus"])
        judgments, queries, corpus = (load_split(read_files(each, source)) for each in paths)
        return iter([join_pairs(judgments, queries, corpus, source.dataset)])

    return {name: lambda _, name=name: read(name) for name in files}  # type: ignore[misc]


def split_of(source: TableSource) -> str:
    """The split that a source reads, with its slice. Raises DataError for a name that a single split does not have."""
    only = None if is_remote(source.dataset) else only_split(path_of(source.dataset))
    return split_in(source.split, only, source.dataset)


def load_split(blocks: Iterable[Table], needed: int | None = None) -> Table:
    """All rows, or the first ones that are needed: the others are read as well, so that errors are the same."""
    parts = []
    with task("reading", unit="rows") as reading:
        for part in blocks:
            left = len(part) if needed is None else max(0, needed - int(reading.done))
            parts.append(part if left >= len(part) else part.take(np.arange(left)))
            reading.update(reading.done + len(part), f"reading {part.origin}")
        table = concatenate(parts)
    return build_table(table.origin, table.columns, table.label_names)


def load_table(source: TableSource) -> Table:
    """The rows that `dataset` and `split` name. Raises DataError, or HubError if the Hub can't be reached."""
    with at_key("split"):
        parse_split(source.split)
    splits = find_splits(source)
    parts = parse_split(split_of(source))
    for part in parts:
        require_split(part.name, splits, source.dataset)
    names = dict.fromkeys(part.name for part in parts)
    needed = {name: rows_needed(parts, name) for name in names}
    tables = {name: load_split(splits[name](needed[name]), needed[name]) for name in names}
    slices = []
    for part in parts:
        table = tables[part.name]
        rows = slice_rows(part, len(table))
        slices.append(table if rows == slice(0, len(table)) else table.take(np.arange(len(table))[rows]))
    return slices[0] if len(slices) == 1 else concatenate(slices)


def open_blocks(
    source: TableSource, stdin_is_json: bool = False, part: Part | None = None
) -> Callable[[], Iterator[Table]]:
    """A function that reads the rows of a split, or of a part of it, block by block; rows are numbered from 1."""
    if source.dataset == STDIN:
        if part is not None:
            raise RecipeError(
                f"standard input can't be read in parts: write the texts into a file, and use --part {part}"
            )
        if source.split != "train":
            raise RecipeError("standard input has no splits: remove --split, or write the texts into a file")
        read = json_blocks if stdin_is_json else text_blocks
        tables = read(sys.stdin.buffer, Path("stdin"), source.read)
        return lambda: _number_rows(replace(table, origin=STDIN) for table in tables)
    with at_key("split"):
        whole = is_whole(source.split)
    if not whole:
        return lambda: _number_rows(_rows_of(load_table(source), part))
    splits, split = find_splits(source), split_of(source)
    require_split(split, splits, source.dataset)
    if part is not None:
        return lambda: _number_rows(_part_blocks(source, split, splits, part))
    return lambda: _number_rows(splits[split](None))


def _part_blocks(source: TableSource, split: str, splits: Splits, part: Part) -> Iterator[Table]:
    if files := _files_to_divide(source):
        for portion in portions(files, part):
            for table in read_portion(portion, source.read):
                yield replace(table, origin=source.dataset)
    elif is_saved(path := path_of(source.dataset)):
        yield from read_saved_part(path, split, part)
    else:
        rows = sum(map(len, splits[split](None)))
        yield from slice_blocks(splits[split](None), part.share_of(rows))


def _files_to_divide(source: TableSource) -> list[Path]:
    """The files whose rows, one after another, are those of the split; none if they are elsewhere, or joined."""
    files = local_files(source) or []
    is_whole_rows = files and files[0].parent.name != JUDGMENTS and not is_document(files[0], source.dataset)
    return files if is_whole_rows else []


def count_rows(source: TableSource, part: Part | None = None) -> int | None:
    """Rows of the split, or of a part of it, for an estimate of the time left. None if only reading would tell."""
    if not is_whole(source.split):
        return None
    files = _files_to_divide(source)
    counts = [count_portion_rows(portion, source.read) for portion in portions(files, part or Part(1, 1))]
    return None if not counts or None in counts else sum(filter(None, counts))


def _rows_of(table: Table, part: Part | None) -> Iterator[Table]:
    return iter([table]) if part is None else slice_blocks(iter([table]), part.share_of(len(table)))


def _number_rows(blocks: Iterable[Table]) -> Iterator[Table]:
    """The blocks that hold rows, with the rows numbered across blocks."""
    start = 0
    for table in blocks:
        if len(table):
            yield replace(table, row=np.arange(start + 1, start + len(table) + 1))
        start += len(table)
