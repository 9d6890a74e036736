"""A location in a recipe: a path on this machine, an address in an object store, or an id on the Hub.

A string with `://` is an address. It is a path if it starts with `./ ../ / ~`, holds a glob, or ends in a suffix that
stfit reads; anything else is a Hub id. A relative path is relative to the file that writes it, so the loader marks
every string of a recipe with the folder of its file. Only what is written can be a pattern: a folder may hold any
character in its name.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, SerializationInfo, ValidatorFunctionWrapHandler, WrapValidator

READERS = {
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json_file",
    ".csv": "delimited",
    ".tsv": "delimited",
    ".txt": "text_lines",
    ".parquet": "parquet",
    ".arrow": "arrow_file",
    ".feather": "arrow_file",
}
"""Suffix of a data file -> its reader NAME: the function `read_NAME` in `stfit/data/reading/NAME.py`."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""May follow any suffix but .parquet, which is compressed inside."""
DATA_FILE = re.compile(
    rf"(?P<stem>.*?)(?P<kind>{'|'.join(map(re.escape, READERS))})"
    rf"((?<!\.parquet)({'|'.join(map(re.escape, COMPRESSIONS))}))?",
    re.IGNORECASE | re.DOTALL,
)
DATA_SUFFIXES = f"{', '.join(READERS)}; all but .parquet also with {', '.join(COMPRESSIONS)}"
"""For messages."""
VECTOR_SUFFIXES = (".txt", ".txt.gz", ".vec", ".vec.gz")
EMBEDDING_SUFFIXES = (".npy", ".safetensors")


def data_kind(name: str) -> str:
    """The suffix of a data file without its compression, a key of READERS; empty for another file."""
    match = DATA_FILE.fullmatch(name)
    return match["kind"].lower() if match else ""


def without_data_suffix(name: str) -> str:
    match = DATA_FILE.fullmatch(name)
    return match["stem"] if match else name


class Located(str):
    """A string of a recipe, with the folder that its relative paths start from."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Located:
        located = super().__new__(cls, text)
        located.folder = folder
        return located


class Pattern(str):
    """A resolved location that is a glob; the folder that it starts from is escaped."""


ADDRESS = re.compile(r"(?!https?:|hf:|ftp:)([a-z][a-z0-9+]+):/{1,3}(?=[^/])")
"""Begins the address of a file that is not on this disk; `Path` makes one slash of several."""


def is_address(location: str) -> bool:
    """Whether a location is in an object store, such as s3://bucket/corpus.jsonl."""
    return "://" in location and ADDRESS.match(location) is not None


def address_of(path: Path) -> str | None:
    """The address that was made a path."""
    match = ADDRESS.match(str(path))
    if match is None:
        return None
    root = "/" if match[1] == "file" else ""  # a path of this disk, where others begin with the name of a bucket
    return f"{match[1]}://{root}{str(path)[match.end() :]}"


ESCAPED = re.compile(r"\[([*?\[])\]")
"""A character that has no meaning in a glob, as `glob.escape` writes it."""


NO_STDIN = "is standard input, which only `encode` and `similar` read: write the rows into a file"


def looks_like_path(text: str) -> bool:
    return (
        text in (".", "..")
        or text.startswith(("./", "../", "/", "~"))
        or any(character in text for character in "*?[")
        or bool(data_kind(text))
        or text.endswith((*VECTOR_SUFFIXES, *EMBEDDING_SUFFIXES))
    )


def _resolve_location(value: Any, validate: ValidatorFunctionWrapHandler) -> str:
    text: str = validate(value)
    if text == "-" and isinstance(value, Located):
        raise ValueError(NO_STDIN)
    if is_address(text):
        is_pattern = glob.has_magic(ESCAPED.sub("", text))
        return Pattern(text) if is_pattern else ESCAPED.sub(r"\1", text)
    if not looks_like_path(text):
        return text
    start, written = str(value.folder) if isinstance(value, Located) else os.getcwd(), text
    if text.startswith("~"):
        user, _, written = text.partition("/")
        start = os.path.expanduser(user)  # Path.expanduser raises for a user that does not exist
    location = os.path.normpath(os.path.join(start, written))
    if os.path.exists(location):
        return location
    if glob.has_magic(ESCAPED.sub("", written)):
        return Pattern(os.path.normpath(os.path.join(glob.escape(start), written)))
    return os.path.normpath(os.path.join(start, ESCAPED.sub(r"\1", written)))


FOR_OTHERS = {"for_others": True}
"""Context of a `model_dump` that leaves this machine: paths lose their folders."""
TO_BE_READ = {"to_be_read": True}
"""Context of a `model_dump` that is read again: a path must not become a pattern, even if its file is gone by then."""


def without_folder(value: Any) -> Any:
    """An absolute path, or an address, as `./` and its last part; any other value unchanged."""
    is_private = isinstance(value, str) and (os.path.isabs(value) or is_address(value))
    return f"./{os.path.basename(value)}" if is_private else value


def _show_location(value: Any, info: SerializationInfo) -> Any:
    if not isinstance(value, str):
        return value
    if info.context == TO_BE_READ and not isinstance(value, Pattern):
        return glob.escape(value)
    return without_folder(value) if info.context == FOR_OTHERS else str(value)


Location = Annotated[str, WrapValidator(_resolve_location), PlainSerializer(_show_location)]
