"""Files of object stores (s3://, gs://, ...), through fsspec and the driver of the store, which the user installs.

An address becomes a UPath, which has the methods of Path that readers use. What must be memory-mapped is downloaded
first, and what is written is uploaded when it is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any, cast

from stfit.data.cache.folder import cache_folder, mark_used, trim_cache
from stfit.data.part import Part
from stfit.errors import DataError, RecipeError, ResourceError, StfitError
from stfit.io.json_files import load_json, write_json
from stfit.paths import Pattern, address_of, is_address
from stfit.progress import task

BUFFER = 2**20
STATE = ".stored.json"
"""In a copy: the names of its files, and what told their content apart."""


def path_of(location: str) -> Path:
    """The path of a resolved location. Raises RecipeError for a store that can't be used, DataError if it refuses."""
    if not is_address(location):
        return Path(location)
    _require_reachable(location)
    return _store_path(location)


@cache
def _require_reachable(address: str) -> None:
    """Drivers have errors of their own for missing credentials and for a store that is not there."""
    path: Any = _store_path(address)
    with _as(DataError, f"{address} can't be read"):
        path.fs.glob(path.path)


def _store_path(address: str) -> Path:
    try:
        from upath import UPath
    except ImportError as error:
        raise RecipeError(
            f"{address} is in an object store: install the extra `stores` and the driver of the store, such as s3fs "
            "or gcsfs"
        ) from error
    try:
        path = UPath(address)
        if hasattr(path.fs, "auto_mkdir"):  # where folders have to be made; this loads the driver, too
            path.fs.auto_mkdir = True
    except (ImportError, ValueError) as error:
        raise RecipeError(f"{address} can't be opened: {error}") from error
    return path  # type: ignore[return-value]


def given_path(path: Path) -> Path:
    """The path of an argument, of which `Path` has changed an address."""
    return path_of(address_of(path) or str(path))


def shown(path: Path) -> str:
    return address_of(path) or str(path)


def is_stored(path: Path) -> bool:
    """Whether it is in an object store."""
    return not isinstance(path, Path)


@contextmanager
def _as(kind: type[StfitError], what: str) -> Iterator[None]:
    """Each driver has errors of its own."""
    try:
        yield
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {error}") from error


def matches(pattern: Pattern) -> list[Path]:
    """The files of a pattern that is an address, in order."""
    path: Any = path_of(pattern)
    return [_store_path(path.fs.unstrip_protocol(name)) for name in sorted(path.fs.glob(path.path))]


@contextmanager
def openable(path: Path) -> Iterator[Path | IO[bytes]]:
    """What libraries that open a path themselves take instead of one in a store."""
    if not is_stored(path):
        yield path
        return
    with BufferedReader(open_raw(path), BUFFER) as file:
        yield file


def open_raw(path: Path) -> RawIOBase:
    """A file of which no more is read than asked for: drivers would read up to 50 MB ahead."""
    stored: Any = path
    return cast(RawIOBase, stored.open("rb", **({"cache_type": "none"} if is_stored(path) else {"buffering": 0})))


def version_of(path: Path) -> str:
    """What changes with the content of a stored file: of s3, its ETag is a part of it."""
    stored: Any = path
    return str(stored.fs.ukey(stored.path))


def local_copy(path: Path) -> Path:
    """A file or a folder of a store on this disk, downloaded again if it changed; a path of this disk as it is."""
    if not is_stored(path):
        return path
    stored: Any = path
    with _as(DataError, f"{path} can't be read"):
        folder, fs = stored.path, stored.fs
        names = sorted(fs.find(folder))
        found = {name.removeprefix(folder).strip("/"): str(fs.ukey(name)) for name in names}
    copy = cache_folder("downloads") / sha256(str(path).encode()).hexdigest()[:16] / path.name
    known = _known(copy)
    for gone in known.keys() - found.keys():
        (copy / gone).unlink(missing_ok=True)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with task(f"downloading {path}", len(found)) as downloading, _as(DataError, f"{path} can't be read"):
        for name, version in found.items():
            if known.get(name) != version:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                fs.get_file(f"{folder}/{name}".rstrip("/"), str(copy / name))
            downloading.advance(1)
    write_json(copy.parent / STATE, found)
    mark_used(copy.parent)
    trim_cache(copy.parent)
    return copy


def _known(copy: Path) -> dict[str, str]:
    try:
        return dict(load_json(copy.parent / STATE))
    except (OSError, ValueError):
        return {}


@contextmanager
def local_output(output: Path, part: Part | None = None) -> Iterator[Path]:
    """Where to write: `output` itself or, of an address, a path of this disk, which is uploaded when the block ends.

    After an error, what was written stays on this disk, so that the same command resumes. Of a folder of parts, the
    facts of the others are there, without their embeddings. Raises ResourceError.
    """
    address = address_of(output)
    if address is None:
        yield output
        return
    stored: Any = _store_path(address)
    key = sha256(f"{address} {part}".encode()).hexdigest()[:16]
    local = cache_folder("outputs") / key / stored.name
    local.parent.mkdir(parents=True, exist_ok=True)
    with _as(ResourceError, f"{address} can't be written"):
        others = _fetch_facts(stored, local) if part else []
    yield local
    with task(f"uploading {address}"), _as(ResourceError, f"{address} can't be written"):
        files = [local] if local.is_file() else [file for file in local.rglob("*") if file.is_file()]
        # The facts of a part come last: without them, the part is not there.
        for file in sorted(files, key=lambda file: (file.name == "part.json", file)):
            if file not in others:
                name = file.relative_to(local).as_posix()
                stored.fs.put_file(str(file), stored.path if file == local else f"{stored.path}/{name}")
    shutil.rmtree(local.parent)


def _fetch_facts(stored: Any, local: Path) -> list[Path]:
    fetched = []
    for name in stored.fs.glob(f"{stored.path}/part-*/part.json"):
        file = local.joinpath(*name.split("/")[-2:])
        file.parent.mkdir(parents=True, exist_ok=True)
        stored.fs.get_file(name, str(file))
        fetched.append(file)
    return fetched
