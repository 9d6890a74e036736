"""Data files on this machine: which files are whose split, their rows, and their fingerprint."""

import glob
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from stfit.data.reading.saved_to_disk import is_saved
from stfit.data.reading.split import parse_split, require_split
from stfit.data.reading.text_lines import open_bytes
from stfit.data.source import STDIN, ReadOptions, TableSource, is_remote
from stfit.data.table import Table, build_table
from stfit.errors import DataError, did_you_mean
from stfit.io.hashing import hash_file
from stfit.io.json_files import load_json
from stfit.paths import DATA_SUFFIXES, READERS

NAMED_ONLY = {".txt": "text_lines", ".txt.gz": "text_lines"}
"""Readers of files that a dataset may name, but that are no splits of a folder."""
MAX_LABELS_BYTES = 16 * 2**20

SPLIT_FILE = re.compile(rf"(?P<split>.+?)(-\d+-of-\d+)?(?P<suffix>{'|'.join(map(re.escape, DATA_SUFFIXES))})")


def read_files(paths: list[Path], source: TableSource) -> Iterator[Table]:
    """Blocks of all files of a split, the first one without rows. Raises DataError with the file and the line."""
    origin = str(paths[0]) if len(paths) == 1 else source.dataset
    label_names = read_label_names(paths[0].parent / "labels.json")
    yield build_table(origin, {}, label_names)
    for path in paths:
        for table in read_file(path, source.read):
            yield replace(table, origin=origin, label_names=table.label_names | label_names)


def read_file(path: Path, options: ReadOptions) -> Iterator[Table]:
    """Blocks of one file, which together are the file. Raises DataError with the line if it can't be read."""
    name = _reader_name(path)
    if name is None:
        raise DataError(f"{path}: unsupported file suffix, use one of {', '.join(DATA_SUFFIXES)}")
    read = getattr(import_module(f"stfit.data.reading.{name}"), f"read_{name}")
    with _as_data_error(path):
        yield from read(path, options)


def _reader_name(path: Path) -> str | None:
    return next((name for suffix, name in (READERS | NAMED_ONLY).items() if path.name.endswith(suffix)), None)


@contextmanager
def _as_data_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError) as error:  # pyarrow raises ValueError
        raise DataError(f"{path} can't be read: {error}") from error


def local_files(source: TableSource) -> list[Path] | None:
    """The files of a split, in order; None for standard input, a dataset on the Hub, or one saved to disk."""
    path = Path(source.dataset)
    if source.dataset == STDIN or is_remote(source.dataset) or is_saved(path):
        return None
    splits = files_by_split(path)
    require_split(source.split, splits, source.dataset)
    return splits[source.split]


def input_paths(source: TableSource) -> list[Path]:
    """The paths of this machine that a source reads, for the question whether an output would replace one."""
    if source.dataset == STDIN:
        return [Path("/dev/stdin")]
    if is_remote(source.dataset):
        return []
    path = Path(source.dataset)
    files = (
        [*path.glob("*"), *path.glob("data/*")] if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    )
    return [path, *files]


def files_by_split(path: Path) -> dict[str, list[Path]]:
    """Split -> its files, in order. One file or a glob is the split `train`. Raises DataError if there is none."""
    if path.is_file():
        return {"train": [path]}
    if path.is_dir():
        return _folder_splits(path)
    if glob.has_magic(str(path)):
        if matches := sorted(Path(name) for name in glob.glob(str(path), recursive=True)):
            return {"train": matches}
        raise DataError(f"no file matches {path}")
    siblings = sorted(sibling.name for sibling in path.parent.glob("[!.]*")) if path.parent.is_dir() else []
    raise DataError(f"{path} does not exist: {did_you_mean(path.name, siblings)}".rstrip(": "))


def _folder_splits(folder: Path) -> dict[str, list[Path]]:
    """Splits of a folder with `train.jsonl.gz`, `test-00000-of-00002.parquet`, ... in itself or in `data/`."""
    splits: dict[str, list[Path]] = {}
    kinds: dict[str, set[tuple[Path, str]]] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("data/*")]):
        if match := SPLIT_FILE.fullmatch(path.name):
            splits.setdefault(match["split"], []).append(path)
            kinds.setdefault(match["split"], set()).add((path.parent, match["suffix"]))
    if not splits:
        raise DataError(
            f"{folder} has no data files for a split, such as train.jsonl or test.csv ({', '.join(DATA_SUFFIXES)})"
        )
    for name, paths in splits.items():
        if len(kinds[name]) > 1:
            raise DataError(
                f"several files could be the split `{name}`: {', '.join(map(str, paths))}; set `dataset` to one of them"
            )
    return splits


def read_label_names(path: Path) -> dict[str, list[str]]:
    """Names of classes in a labels.json, if any: `{"label": ["no", "yes"]}` or `{"label": {"no": 0, "yes": 1}}`."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_LABELS_BYTES:
        raise DataError(f"{path} is larger than {MAX_LABELS_BYTES >> 20} MiB: are these the names of classes?")
    try:
        return {column: _ordered_names(names) for column, names in load_json(path).items()}
    except (ValueError, AttributeError, TypeError) as error:
        message = f'{path} must map a column to the names of its classes, as in {{"label": ["no", "yes"]}}: {error}'
        raise DataError(message) from error


def _ordered_names(names: list[str] | dict[str, Any]) -> list[str]:
    if isinstance(names, list):
        return [str(name) for name in names]
    numbers = {number: name for name, number in names.items()}
    if all(map(str.isdigit, names)):
        numbers = {int(key): str(value) for key, value in names.items()}
    if sorted(numbers) != list(range(len(names))):
        raise ValueError("classes are numbered 0, 1, 2, ... without gaps")
    return [numbers[number] for number in range(len(names))]


def count_rows(source: TableSource) -> int | None:
    """Rows of the split, for an estimate of the time left: lines count as rows. None if only reading would tell."""
    counts = [_count_file_rows(path) for path in local_files(source) or []]
    return None if not counts or None in counts else sum(filter(None, counts))


def _count_file_rows(path: Path) -> int | None:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return int(parquet.read_metadata(path).num_rows)
    if _reader_name(path) is None:
        return None
    with open_bytes(path) as file:  # about one row per line
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))


def fingerprint_files(source: TableSource) -> str | None:
    """sha256 of the files of the splits, which is faster than reading their rows; None if they are not on this disk."""
    if is_remote(source.dataset):
        return None
    digest = sha256()
    for path in filter(Path.is_file, _files_of_splits(source)):
        digest.update(f"{path.stat().st_size} ".encode())
        hash_file(path, digest)
    return digest.hexdigest()


def _files_of_splits(source: TableSource) -> list[Path]:
    """All files of a folder with another layout than files of splits, such as BEIR's."""
    path = Path(source.dataset)
    if is_saved(path):
        return sorted(file for file in path.rglob("*") if not file.name.startswith("cache-"))  # of `datasets`
    splits = files_by_split(path)
    names = dict.fromkeys(part.name for part in parse_split(source.split))
    if not names.keys() <= splits.keys() and path.is_dir():
        return sorted(path.rglob("*"))
    files = [file for name, paths in splits.items() if name in names or len(splits) == 1 for file in paths]
    return [*files, *(file.parent / "labels.json" for file in files[:1])]
