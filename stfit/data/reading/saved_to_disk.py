"""Folders written by `save_to_disk` of `datasets`. A folder must not name files outside of itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stfit.errors import DataError
from stfit.io.json_files import load_json
from stfit.io.unicode import is_unicode


def is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def load_saved(folder: Path) -> dict[str, Any]:
    """Split -> Dataset; a single Dataset has one split: the one it was made from, or `train`."""
    import datasets

    _require_inside(folder)
    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # damaged files raise anything
        raise DataError(f"{folder} looks like a dataset saved to disk, but can't be read: {error}") from error
    if isinstance(saved, datasets.Dataset):
        return {str(saved.split or "train"): saved}
    return {str(name): dataset for name, dataset in saved.items()}


LISTINGS: dict[str, Callable[[Any], list[Any]]] = {
    "dataset_dict.json": lambda content: content["splits"],
    "state.json": lambda content: [entry["filename"] for entry in content["_data_files"]],
}
"""File of a saved folder -> the names of other files or folders in its content."""


def _require_inside(folder: Path) -> None:
    for listing in filter(Path.is_file, map(folder.joinpath, LISTINGS)):
        try:
            names = list(map(str, LISTINGS[listing.name](load_json(listing))))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{listing}: can't be read: {error!r}") from error
        for name in names:
            path = folder / name
            is_name = bool(name) and Path(name).name == name and is_unicode(name)
            if not is_name or not path.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"{listing}: `{name}` is outside {folder}")
            if path.is_dir():
                _require_inside(path)
