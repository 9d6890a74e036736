"""Folders written by `save_to_disk` of `datasets`. A folder must not name files outside of itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from stfit.data.part import Part
from stfit.data.reading.hub import dataset_blocks
from stfit.data.table import Table, build_table
from stfit.errors import DataError
from stfit.io.json_files import load_json
from stfit.io.unicode import is_unicode

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError)
"""What `datasets` and damaged JSON raise."""


def is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _saved_split(folder: Path) -> str | None:
    """The split that a single Dataset was made from, or `train`; None for a folder of splits. Raises DataError."""
    if (folder / "dataset_dict.json").is_file():
        return None
    with _as_data_error(folder):
        return str(load_json(folder / "state.json").get("_split") or "train")


def saved_splits(folder: Path) -> dict[str, Callable[[int | None], Iterator[Table]]]:
    """Split -> its blocks, loaded when they are read. Raises DataError."""
    _require_inside(folder)
    if only := _saved_split(folder):
        return {only: partial(_read_split, folder)}
    with _as_data_error(folder):
        names = list(map(str, load_json(folder / "dataset_dict.json")["splits"]))
    return {name: partial(_read_split, folder / name) for name in names}


def read_saved_part(folder: Path, split: str, part: Part) -> Iterator[Table]:
    """The rows of a part, of a split that `saved_splits` gave. Raises DataError."""
    yield from _read_split(folder if _saved_split(folder) else folder / split, None, part)


def _read_split(folder: Path, limit: int | None, part: Part | None = None) -> Iterator[Table]:
    import datasets

    with _as_data_error(folder):
        if not load_json(folder / "state.json")["_data_files"]:  # `datasets` can't load a split without rows
            columns = load_json(folder / "dataset_info.json")["features"]
            yield build_table(str(folder), {name: [] for name in columns}, {})
            return
        saved = datasets.Dataset.load_from_disk(str(folder))
        if part is not None:
            saved = saved.select(part.share_of(len(saved)))
    yield from dataset_blocks(saved, str(folder), limit)


@contextmanager
def _as_data_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise DataError(f"{folder} looks like a dataset saved to disk, but can't be read: {error}") from error


LISTINGS: dict[str, Callable[[Any], list[Any]]] = {
    "dataset_dict.json": lambda content: content["splits"],
    "state.json": lambda content: [entry["filename"] for entry in content["_data_files"]],
}
"""File of a saved folder -> the names of other files or folders in its content."""


def _require_inside(folder: Path) -> None:
    for listing in filter(Path.is_file, map(folder.joinpath, LISTINGS)):
        try:
            names = list(map(str, LISTINGS[listing.name](load_json(listing))))
        except UNREADABLE as error:
            raise DataError(f"{listing}: can't be read: {error!r}") from error
        for name in names:
            path = folder / name
            is_name = bool(name) and Path(name).name == name and is_unicode(name)
            if not is_name or not path.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"{listing}: `{name}` is outside {folder}")
            if path.is_dir():
                _require_inside(path)
