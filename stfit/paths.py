"""A location in a recipe: a path on this machine, or an id on the Hub.

A string is a path if it starts with `./ ../ / ~`, holds a glob, or ends in a suffix that stfit reads; anything else is
a Hub id. A relative path is relative to the file that writes it, so the loader marks every string of a recipe with the
folder of its file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, SerializationInfo

READERS = {
    ".jsonl": "json_lines",
    ".jsonl.gz": "json_lines",
    ".csv": "delimited",
    ".csv.gz": "delimited",
    ".tsv": "delimited",
    ".tsv.gz": "delimited",
    ".parquet": "parquet",
}
"""Suffix of a data file -> its reader NAME: the function `read_NAME` in `stfit/data/reading/NAME.py`."""
DATA_SUFFIXES = tuple(READERS)
TEXT_SUFFIXES = (".txt", ".txt.gz", ".vec", ".vec.gz")


class Located(str):
    """A string of a recipe, with the folder that its relative paths start from."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Located:
        located = super().__new__(cls, text)
        located.folder = folder
        return located


def looks_like_path(text: str) -> bool:
    return (
        text in (".", "..")
        or text.startswith(("./", "../", "/", "~"))
        or any(character in text for character in "*?[")
        or text.endswith(DATA_SUFFIXES + TEXT_SUFFIXES)
    )


def _resolve_location(value: Any) -> Any:
    if not isinstance(value, str) or not looks_like_path(value):
        return value
    folder = value.folder if isinstance(value, Located) else Path.cwd()
    # os.path, since Path.expanduser raises for a user that does not exist
    return os.path.normpath(folder / os.path.expanduser(value))


FOR_OTHERS = {"for_others": True}
"""Context of a `model_dump` that leaves this machine: paths lose their folders."""


def without_folder(value: Any) -> Any:
    """An absolute path as `./` and its last part; any other value unchanged."""
    return f"./{os.path.basename(value)}" if isinstance(value, str) and os.path.isabs(value) else value


def _show_location(value: Any, info: SerializationInfo) -> Any:
    return without_folder(value) if info.context == FOR_OTHERS else value


Location = Annotated[str, BeforeValidator(_resolve_location), PlainSerializer(_show_location)]
