"""Data files on this machine: which files are whose split, their rows, and their fingerprint."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stfit.data.embeddings.parts import ROWS, StoredPart, complete_parts, holds_parts
from stfit.data.object_store import matches, path_of
from stfit.data.reading.beir import JUDGMENTS
from stfit.data.reading.documents import MARKDOWN, document_files, holds_model, read_documents
from stfit.data.reading.labels_json import read_label_names
from stfit.data.reading.packed_file import UNPACKING_ERRORS
from stfit.data.reading.saved_to_disk import is_saved, saved_splits
from stfit.data.reading.split import parse_split, require_split, split_in
from stfit.data.source import STDIN, ReadOptions, TableSource, Unnamed, is_remote
from stfit.data.table import Table, build_table
from stfit.errors import DataError, did_you_mean
from stfit.io.hashing import hash_file
from stfit.lazy import lazy
from stfit.paths import DATA_SUFFIXES, READERS, Pattern, data_kind, is_address, without_data_suffix

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

SHARD = re.compile(r"(?P<split>.+?)-\d+-of-\d+")
ADDRESS = re.compile(r"(?:^|/)((?:https?|ftp|hf):)/")
"""In a path, which holds no two slashes in a row."""
SPLIT_NAMES = ("train", "training", "validation", "valid", "val", "dev", "development", "test", "testing", "eval")
"""A folder holds other .json and .txt files too (labels.json, README.txt): only those named so are splits of it."""


def read_files(paths: list[Path], source: TableSource) -> Iterator[Table]:
    """Blocks of all files of a split, the first one without rows. Raises DataError with the file and the line."""
    origin = str(paths[0]) if len(paths) == 1 else source.dataset
    if is_document(paths[0], source.dataset):
        root = path_of(source.dataset)
        yield from read_documents(paths, root if root.is_dir() else root.parent, source.read)
        return
    label_names = read_label_names(paths[0].parent / "labels.json", source.label_column)
    yield build_table(origin, {}, label_names)
    for path in paths:
        for table in read_file(path, source.read):
            yield replace(table, origin=origin, label_names=table.label_names | label_names)


def read_file(path: Path, options: ReadOptions) -> Iterator[Table]:
    """Blocks of one file, which together are the file. Raises DataError with the line if it can't be read."""
    name = _reader_name(path, options)
    if name is None:
        raise DataError(f"{path}: unsupported file suffix, use one of {DATA_SUFFIXES}")
    read = getattr(import_module(f"stfit.data.reading.{name}"), f"read_{name}")
    with _as_data_error(path):
        yield from read(path, options)


def holds_documents(dataset: str) -> bool:
    """Whether a resolved `dataset` is a folder of documents, whose passages are rows. Raises DataError."""
    if dataset == STDIN or is_remote(dataset) or not path_of(dataset).is_dir() or is_saved(path_of(dataset)):
        return False
    return any(is_document(path, dataset) for paths in files_by_split(dataset).values() for path in paths[:1])


def is_document(path: Path, dataset: str) -> bool:
    """Whether the file is a document, whose passages are rows, and no split of the folder `dataset`."""
    suffix = path.suffix.lower()
    return suffix in MARKDOWN or (suffix == ".txt" and _split_of(path) is None and path_of(dataset).is_dir())


def _reader_name(path: Path, options: ReadOptions) -> str | None:
    name = READERS.get(data_kind(path.name))
    return "delimited" if name == "text_lines" and options.delimiter else name


@contextmanager
def _as_data_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, *UNPACKING_ERRORS, ValueError, OverflowError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}") from error


def local_files(source: TableSource) -> list[Path] | None:
    """The files of a split, in order; None for standard input, a dataset on the Hub, or one saved to disk."""
    path = path_of(source.dataset)
    if source.dataset == STDIN or is_remote(source.dataset) or is_saved(path):
        return None
    splits = files_by_split(source.dataset)
    split = split_in(source.split, only_split(path), source.dataset)
    names = dict.fromkeys(part.name for part in parse_split(split))
    for name in names:
        require_split(name, splits, source.dataset)
    return [file for name in names for file in splits[name]]


def input_paths(source: TableSource) -> list[Path]:
    """The paths of this machine that a source reads, for the question whether an output would replace one."""
    if source.dataset == STDIN:
        return [Path("/dev/stdin")]
    if is_remote(source.dataset):
        return []
    if is_address(source.dataset):
        return []
    if isinstance(source.dataset, Pattern):
        return _matches(source.dataset)
    return [path_of(source.dataset)]


def shown_split(source: TableSource) -> str | None:
    """The split that is read, for people; None where the recipe names none and the dataset has no other."""
    is_only = (
        isinstance(source.split, Unnamed) and not is_remote(source.dataset) and only_split(path_of(source.dataset))
    )
    return None if is_only else source.split


def only_split(path: Path) -> str | None:
    """The split of a dataset that has only one; that of a file or a glob is `train`."""
    if is_saved(path):
        names = set(saved_splits(path))
    elif holds_parts(path):
        names = {"train"}
    else:
        names = {name for file in _files_in(path) if (name := _split_of(file))} if path.is_dir() else {"train"}
        names = names or {"train"}  # a folder of documents
    return next(iter(names)) if len(names) == 1 else None


def files_by_split(dataset: str) -> dict[str, list[Path]]:
    """Split -> its files, in order. One file or a glob is the split `train`. Raises DataError if there is none."""
    path = path_of(dataset)
    if not is_address(dataset) and not path.exists() and (address := ADDRESS.search(dataset)):
        raise DataError(
            f"`{address[1]}//...` is an address and no path: download the file, and set `dataset` to its path; a "
            "dataset on the Hub is set by its id (owner/name), and its files by `files`"
        )
    if isinstance(dataset, Pattern):
        if found := _matches(dataset):
            return {"train": found}
        hint = " ([ ] are part of a pattern; write [[] for a `[` in a name)" if "[" in path.name else ""
        raise DataError(f"no file matches {dataset}{hint}")
    if path.is_file():
        return {"train": [path]}
    if holds_parts(path):
        return {"train": [_rows_of(stored) for stored in complete_parts(path)]}
    if path.is_dir():
        return _folder_splits(path)
    if path.exists():
        raise DataError(f"{path} is neither a file nor a folder: write the rows into a file")
    if path.is_symlink():
        raise DataError(f"{path} is a link to a file that does not exist, or to itself: make it point to a data file")
    siblings = sorted(sibling.name for sibling in path.parent.glob("[!.]*")) if path.parent.is_dir() else []
    raise DataError(f"{path} does not exist: {did_you_mean(path.name, siblings)}".rstrip(": "))


def _rows_of(stored: StoredPart) -> Path:
    """The file of the texts that were embedded."""
    path = stored.folder / ROWS
    if not path.is_file():
        raise DataError(f"{stored.folder} holds embeddings without their texts: encode with --with-text")
    return path


def _matches(pattern: Pattern) -> list[Path]:
    return matches(pattern) if is_address(pattern) else sorted(map(Path, glob.glob(pattern, recursive=True)))


def _folder_splits(folder: Path) -> dict[str, list[Path]]:
    """Splits of a folder with `train.jsonl.gz`, `test-00000-of-00002.parquet`, ... in itself or in `data/`."""
    splits: dict[str, list[Path]] = {}
    for path in _files_in(folder):
        if name := _split_of(path):
            splits.setdefault(name, []).append(path)
    if not splits and (documents := document_files(folder)):
        return {"train": documents}
    if not splits and holds_model(folder):
        raise DataError(f"{folder} is the folder of a model: set `dataset` to its data")
    if not splits:
        saved = next(
            (f": set `dataset` to {path}, saved by `datasets`" for path in folder.glob("*") if is_saved(path)), ""
        )
        raise DataError(
            f"{folder} has no data files for a split, such as train.jsonl or test.csv ({DATA_SUFFIXES}), and no "
            f"documents (.txt, .md){saved}"
        )
    for name, paths in splits.items():
        if len({(path.parent, path.name.removeprefix(without_data_suffix(path.name))) for path in paths}) > 1:
            raise DataError(
                f"several files could be the split `{name}`: {', '.join(map(str, paths))}; set `dataset` to one of them"
            )
    return splits | _judged_splits(folder, splits)


def _judged_splits(folder: Path, splits: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """In BEIR's layout, a split for every file of judgments: it is read with the corpus and the queries."""
    if not {"corpus", "queries"} <= splits.keys():
        return {}
    tables = [*splits["corpus"], *splits["queries"]]
    return {without_data_suffix(path.name): [path, *tables] for path in sorted(folder.glob(f"{JUDGMENTS}/*.tsv*"))}


def _files_in(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*"), *folder.glob("data/*")])


def _split_of(path: Path) -> str | None:
    kind, stem = data_kind(path.name), without_data_suffix(path.name)
    name = match["split"] if (match := SHARD.fullmatch(stem)) else stem
    return None if not kind or (kind in (".json", ".txt") and name not in SPLIT_NAMES) else name


def fingerprint_files(source: TableSource) -> str | None:
    """sha256 of the files of the splits, which is faster than reading their rows; None if they are not on this disk."""
    files = files_of_splits(source)
    if files is None:
        return None
    digest = sha256()
    for path in files:
        digest.update(f"{path.stat().st_size} ".encode())
        hash_file(path, digest)
    return digest.hexdigest()


def files_of_splits(source: TableSource) -> list[Path] | None:
    """All files that the rows of the splits depend on; None for a dataset on the Hub."""
    return None if is_remote(source.dataset) else [path for path in _paths_of_splits(source) if path.is_file()]


def _paths_of_splits(source: TableSource) -> list[Path]:
    """All files of a folder with another layout than files of splits, such as BEIR's."""
    path = path_of(source.dataset)
    if is_saved(path):
        return sorted(file for file in path.rglob("*") if not file.name.startswith("cache-"))  # of `datasets`
    splits = files_by_split(source.dataset)
    names = dict.fromkeys(part.name for part in parse_split(split_in(source.split, only_split(path), source.dataset)))
    if not names.keys() <= splits.keys() and path.is_dir():
        return sorted(path.rglob("*"))
    files = [file for name, paths in splits.items() if name in names or len(splits) == 1 for file in paths]
    return [*files, *(file.parent / "labels.json" for file in files[:1])]
