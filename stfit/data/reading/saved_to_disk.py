"""Folders that `datasets` saved to disk: what they name has to lie in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stfit.errors import DataError
from stfit.io.json_files import load_json


def require_inside(folder: Path) -> None:
    """Raise DataError where a saved dataset names a split or a file outside of its folder."""
    for listed, name in _names_in(folder):
        path = folder / name
        if Path(name).name != name or not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{listed}: `{name}` leads out of {folder}")
        if path.is_dir():
            require_inside(path)


def _names_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """What the folder's own lists name, and which list does."""
    for name, pick in (
        ("dataset_dict.json", lambda found: found["splits"]),
        ("state.json", lambda found: [file["filename"] for file in found["_data_files"]]),
    ):
        listed = folder / name
        if listed.is_file():
            try:
                names = pick(load_json(listed))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(f"{listed}: can't be read: {error!r}") from error
            yield from ((listed, str(each)) for each in names)
