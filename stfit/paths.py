"""Where a recipe points: a path of this machine, or an id on the Hub.

A string is a path when it starts with `./ ../ / ~`, holds a glob, or ends in a suffix that stfit reads; anything else
is a Hub id. A relative path belongs to the file that writes it, so the loader marks every string of a recipe with that
file's folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, SerializationInfo

DATA_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
TEXT_SUFFIXES = (".txt", ".txt.gz", ".vec", ".vec.gz")


class Located(str):
    """A string of a recipe file that remembers the folder its relative paths start from."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Located:
        """Attach `folder` to `text`."""
        located = super().__new__(cls, text)
        located.folder = folder
        return located


def looks_like_path(text: str) -> bool:
    """Whether `text` names something on this machine rather than on the Hub."""
    return (
        text in (".", "..")
        or text.startswith(("./", "../", "/", "~"))
        or any(character in text for character in "*?[")
        or text.endswith(DATA_SUFFIXES + TEXT_SUFFIXES)
    )


def _resolve_location(value: Any) -> Any:
    """An absolute path for a path, relative to its recipe's folder; a Hub id, or what is no string, as it is."""
    if not isinstance(value, str) or not looks_like_path(value):
        return value
    folder = value.folder if isinstance(value, Located) else Path.cwd()
    # os.path, since Path.expanduser raises for a user that does not exist
    return os.path.normpath(folder / os.path.expanduser(value))


FOR_OTHERS = {"for_others": True}
"""Context of a `model_dump` that leaves this machine: paths lose their folders."""


def without_folder(value: Any) -> Any:
    """What others get to see of a location: of a path its last part, as `./rows.jsonl`; anything else as it is."""
    return f"./{os.path.basename(value)}" if isinstance(value, str) and os.path.isabs(value) else value


def _show_location(value: Any, info: SerializationInfo) -> Any:
    """The value; without its folders where the dump is for others."""
    return without_folder(value) if info.context == FOR_OTHERS else value


Location = Annotated[str, BeforeValidator(_resolve_location), PlainSerializer(_show_location)]
