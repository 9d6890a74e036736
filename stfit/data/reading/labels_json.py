"""Names of classes in a `labels.json` beside the data files.

Other tools write files of this name too, so whatever is not understood is ignored, and said.
"""

import logging
from functools import cache
from pathlib import Path
from typing import Any

from stfit.io.json_files import load_json

log = logging.getLogger("stfit")

MAX_BYTES = 16 * 2**20
MAX_DIGITS = 6


def read_label_names(path: Path, label: str | None) -> dict[str, list[str]]:
    """Column -> the names of its classes 0, 1, ...; empty if there is no such file.

    The file maps columns to names, `{"label": ["no", "yes"]}`, or holds the names of the column `label` alone. Names
    are a list, `{"no": 0, "yes": 1}` or `{"0": "no", "1": "yes"}`. `label` is None if no column of labels is used.
    """
    if not path.is_file():
        return {}
    content, problem = _read(path)
    names_of = {}
    if isinstance(content, dict):
        names_of = {column: names for column, listed in content.items() if (names := _ordered_names(listed))}
    label_column = label or "label"
    if label_column not in names_of and (names := _ordered_names(content)):
        names_of[label_column] = names
    if label and label not in names_of:
        example = f'{{"{label}": ["no", "yes"]}}'
        _warn_once(f"{path} is ignored: {problem or f'it does not name the classes of `{label}`, as in {example}'}")
    return names_of


def _read(path: Path) -> tuple[Any, str]:
    """The content, or None and the reason."""
    if path.stat().st_size > MAX_BYTES:
        return None, f"it is larger than {MAX_BYTES >> 20} MiB"
    try:
        return load_json(path), ""
    except (OSError, ValueError) as error:
        return None, f"it can't be read: {error}"


@cache
def _warn_once(message: str) -> None:
    """Rows are read several times in a run."""
    log.warning(message)


def _ordered_names(listed: Any) -> list[str] | None:
    """The names in the order of their numbers, which start at 0 and have no gaps; None for any other content."""
    if isinstance(listed, list):
        names: dict[int, Any] = dict(enumerate(listed))
    elif not isinstance(listed, dict):
        return None
    elif all(key.isdecimal() and len(key) <= MAX_DIGITS for key in listed):
        names = {int(number): name for number, name in listed.items()}
    else:
        names = {number: name for name, number in listed.items() if type(number) is int}
    ordered = [names.get(number) for number in range(len(listed))]
    texts = [str(name) for name in ordered if isinstance(name, str | int | float)]
    return texts if texts and len(set(texts)) == len(listed) else None
