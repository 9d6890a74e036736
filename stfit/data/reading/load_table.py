"""From where a dataset is to a table: local files and folders, datasets saved to disk, the Hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stfit.data.reading.hub import find_dataset, hub_splits, label_names, table_blocks
from stfit.data.reading.readers import read_file
from stfit.data.reading.saved_to_disk import require_inside
from stfit.data.reading.split import parse_split, rows_needed, slice_of
from stfit.data.source import TableSource, is_remote
from stfit.data.table import Table, build_table, concatenate
from stfit.errors import DataError, Problem, RecipeError, at_key, closest_hint, did_you_mean
from stfit.io.json_files import load_json
from stfit.lazy import lazy
from stfit.paths import DATA_SUFFIXES

if TYPE_CHECKING:
    import datasets
else:
    datasets = lazy("datasets")

LARGEST_LABELS = 16 * 2**20
"""Bytes of a labels.json: the names of a quarter of a million classes."""

Splits = dict[str, Callable[[int | None], Table]]
"""Name of a split -> reads it, or at least its first rows, where a number is given."""

SPLIT_FILE = re.compile(rf"(?P<split>.+?)(-\d+-of-\d+)?(?P<suffix>{'|'.join(map(re.escape, DATA_SUFFIXES))})")


def load_table(source: TableSource) -> Table:
    """The rows that `dataset` and `split` name.

    Raises DataError where there is no such dataset or split, or a file can't be read; HubError where the Hub can't be
    reached.
    """
    with at_key("split"):
        parts = parse_split(source.split)
    splits = hub_splits(source) if is_remote(source.dataset) else local_splits(source)
    for part in parts:
        require_split(part.name, splits, source.dataset)
    tables = {name: splits[name](rows_needed(parts, name)) for name in dict.fromkeys(part.name for part in parts)}
    sliced = []
    for part in parts:
        table = tables[part.name]
        rows = slice_of(part, len(table))
        sliced.append(table if rows == slice(0, len(table)) else table.take(np.arange(len(table))[rows]))
    return sliced[0] if len(sliced) == 1 else concatenate(sliced)


def require_split(name: str, splits: Iterable[str], dataset: str) -> None:
    """Raise DataError where a dataset has no such split."""
    known = sorted(splits)
    if name not in known:
        hint = f"{closest_hint(name, known)} its splits are {', '.join(known)}".lstrip()
        raise DataError(Problem(f"{dataset} has no split `{name}`: {hint}", DataError.code, key="split"))


def open_split(source: TableSource) -> Callable[[], Iterator[Table]]:
    """Reads the rows of a whole split of the Hub, or of a dataset saved to disk, some at a time.

    Raises DataError where there is no such split, HubError where the Hub can't be reached.
    """
    if is_remote(source.dataset):
        found = find_dataset(source)
        require_split(source.split, found.files, source.dataset)
        folder = found.fetch([source.split])
        found.refuse_bombs(folder, source.split)
        return partial(found.blocks, source.split, str(folder))
    refuse_hub_keys(source)
    saved = _load_saved(Path(source.dataset))
    require_split(source.split, saved, source.dataset)
    return partial(table_blocks, saved[source.split], source.dataset)


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def local_splits(source: TableSource) -> Splits:
    """Splits of a file, glob, folder of splits, or folder written by `save_to_disk`."""
    refuse_hub_keys(source)
    path = Path(source.dataset)
    if is_saved(path):
        return {name: partial(_table_of, dataset, str(path)) for name, dataset in _load_saved(path).items()}
    files = split_files(path)
    return {name: lambda _, paths=paths: _read_files(paths, source) for name, paths in files.items()}  # type: ignore[misc]


def refuse_hub_keys(source: TableSource) -> None:
    """Raise RecipeError where a path is given what only a dataset of the Hub has."""
    for key in ("config", "files", "revision"):
        if getattr(source, key) is not None:
            message = f"`{key}` is for datasets of the Hub, and {source.dataset} is a path: leave it out"
            raise RecipeError(Problem(message, RecipeError.code, key=key))


def split_files(path: Path) -> dict[str, list[Path]]:
    """Split -> its files, in order. One file or a glob is the split `train`."""
    if path.is_file():
        return {"train": [path]}
    if path.is_dir():
        return _folder_splits(path)
    if glob.has_magic(str(path)):
        if found := sorted(Path(name) for name in glob.glob(str(path), recursive=True)):
            return {"train": found}
        raise DataError(f"no file matches {path}")
    siblings = sorted(sibling.name for sibling in path.parent.glob("[!.]*")) if path.parent.is_dir() else []
    raise DataError(f"{path} does not exist: {did_you_mean(path.name, siblings)}".rstrip(": "))


def _folder_splits(folder: Path) -> dict[str, list[Path]]:
    """Splits of a folder that holds `train.jsonl.gz`, `test-00000-of-00002.parquet`, ... in itself or in `data/`."""
    splits: dict[str, list[Path]] = {}
    kinds: dict[str, set[tuple[Path, str]]] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("data/*")]):
        if match := SPLIT_FILE.fullmatch(path.name):
            splits.setdefault(match["split"], []).append(path)
            kinds.setdefault(match["split"], set()).add((path.parent, match["suffix"]))
    if not splits:
        raise DataError(
            f"{folder} holds no file that stfit reads: name them train.jsonl, test.csv ({', '.join(DATA_SUFFIXES)})"
        )
    for name, paths in splits.items():
        if len(kinds[name]) > 1:
            raise DataError(
                f"several files could be the split `{name}`: {', '.join(map(str, paths))}; name one as `dataset`"
            )
    return splits


def _read_files(paths: list[Path], source: TableSource) -> Table:
    """The rows of all shards of a split, numbered through."""
    tables = [read_file(path, source.read) for path in paths]
    table = tables[0] if len(tables) == 1 else concatenate(tables)
    origin = str(paths[0]) if len(paths) == 1 else source.dataset
    label_names = table.label_names | read_label_names(paths[0].parent / "labels.json")
    return build_table(origin, table.columns, label_names)


def read_label_names(path: Path) -> dict[str, list[str]]:
    """`{"label": ["no", "yes"]}` or `{"label": {"no": 0, "yes": 1}}` of a labels.json; nothing where there is none."""
    if not path.is_file():
        return {}
    if path.stat().st_size > LARGEST_LABELS:
        raise DataError(f"{path}: is larger than {LARGEST_LABELS >> 20} MiB: are these the names of classes?")
    try:
        written = load_json(path)
        return {column: _ordered_names(names) for column, names in written.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f'{path} should map a column to the names of its classes, like {{"label": ["no", "yes"]}}: {error}'
        ) from error


def _ordered_names(names: list[str] | dict[str, Any]) -> list[str]:
    """Names of the classes 0, 1, ... from a list, or a mapping in either direction."""
    if isinstance(names, list):
        return [str(name) for name in names]
    numbers = (
        {int(key): str(value) for key, value in names.items()}
        if all(map(str.isdigit, names))
        else {number: name for name, number in names.items()}
    )
    if sorted(numbers) != list(range(len(names))):
        raise ValueError("classes are numbered 0, 1, 2, ... without gaps")
    return [numbers[number] for number in range(len(names))]


def _load_saved(folder: Path) -> dict[str, datasets.Dataset]:
    """Splits of a folder written by `save_to_disk`; a single Dataset has the one split it was made from, or `train`."""
    require_inside(folder)
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} looks like a dataset saved to disk, but can't be read: {error}") from error
    if isinstance(saved, datasets.Dataset):
        return {str(saved.split or "train"): saved}
    return {str(name): dataset for name, dataset in saved.items()}


def _table_of(dataset: datasets.Dataset, origin: str, limit: int | None) -> Table:
    """The rows of a Dataset, or its first `limit`, as plain Python values, without decoding images or sound."""
    return build_table(origin, dataset.with_format("arrow")[:limit].to_pydict(), label_names(dataset.features))
