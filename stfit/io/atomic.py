"""Files and folders that a reader finds whole or not at all, no matter when the writer dies."""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from safetensors import SafetensorError

from stfit.distributed import is_rank_zero
from stfit.errors import RecipeError, ResourceError, StfitError

SCRATCH = re.compile(r"(?P<name>.+)\.(?P<process>\d+)(@(?P<node>.*))?\.(tmp|old)")
"""Name of what is unfinished (.tmp) or replaced (.old), with the process and the machine that wrote it.

By these names alone something is deleted: `corpus.old` beside `corpus` is the user's. In caches, earlier versions left
out the machine.
"""


@contextmanager
def wrap_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"{path}: can't be written, the previous content is kept: {error}") from error


def atomic_write(path: Path, text: str) -> None:
    """Write a text file from rank 0. Raises ResourceError, and then keeps the previous file."""
    if is_rank_zero():
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path whose file, flushed to disk, replaces `path` after the block; after an error, nothing is left of it.

    A link keeps its place, and a device or a pipe is written to as it is.
    """
    target = Path(os.path.realpath(path))
    is_special = target.exists() and not target.is_file() and not target.is_dir()
    temporary = target if is_special else temporary_path(target)
    with wrap_os_errors(path):
        try:
            _delete_leftovers(target, ".tmp")
            yield temporary
            if not is_special:
                _apply_umask(temporary)
                sync(temporary)
                temporary.replace(target)
                sync(target.parent)
        except BaseException:
            if not is_special:
                _delete(temporary)
            raise


def temporary_path(path: Path, suffix: str = ".tmp") -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}@{platform.node()}{suffix}")


@contextmanager
def atomic_cache_entry(path: Path) -> Iterator[Path]:
    """Several processes may write one entry at once. Nothing is flushed: a reader treats a damaged entry as missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    delete_scratch_of_dead(path.parent)
    temporary = temporary_path(path)
    try:
        yield temporary
        _apply_umask(temporary)
        temporary.replace(path)
    except BaseException:
        _delete(temporary)
        raise


def delete_scratch_of_dead(folder: Path) -> None:
    """Delete what processes of this machine that were killed have left of the entries they wrote."""
    for path in folder.glob("*.tmp"):
        match = SCRATCH.fullmatch(path.name)
        if match and match["node"] in (None, platform.node()) and not psutil.pid_exists(int(match["process"])):
            _delete(path)


def _delete_leftovers(target: Path, suffix: str) -> None:
    """Delete what processes of this machine that were killed have left of `target`, beside files of the user."""
    for path in target.parent.glob(f"*@*{suffix}"):
        match = SCRATCH.fullmatch(path.name)
        is_ours = match and (match["name"], match["node"]) == (target.name, platform.node())
        if match and is_ours and not psutil.pid_exists(int(match["process"])):
            _delete(path)


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces `folder` after the block; after an error, the previous one is kept."""
    if folder.exists() and not folder.is_dir():  # a device would be deleted
        raise RecipeError(f"{folder}: can't be written: it is no folder")
    temporary = temporary_path(folder)
    _delete(temporary)
    _delete_leftovers(folder, ".tmp")
    try:
        with wrap_os_errors(folder):
            temporary.mkdir(parents=True)
            yield temporary
            _commit_directory(temporary, folder)
    except StfitError:
        _delete(temporary)
        raise


def _commit_directory(temporary: Path, folder: Path) -> None:
    for path in (*temporary.rglob("*"), temporary):
        _apply_umask(path)
        sync(path)
    old = temporary_path(folder, ".old")
    _delete(old)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    sync(folder.parent)
    _delete(old)
    _delete_leftovers(folder, ".old")


def _apply_umask(path: Path) -> None:
    """Give a file the mode of any new file: safetensors creates its files with mode 0600, which servers can't read."""
    if path.is_file():
        mask = os.umask(0o077)  # there is no other way to read it
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def discard(folder: Path) -> None:
    """Delete a folder; renames it first, so that a half-deleted folder never has its name."""
    temporary = temporary_path(folder)
    _delete(temporary)
    folder.rename(temporary)
    shutil.rmtree(temporary)


def recover(parent: Path) -> None:
    """Finish or undo what a writer that was killed, on whatever machine, left in `parent`."""
    for left in list(parent.glob("*@*")):
        match = SCRATCH.fullmatch(left.name)
        if match and left.suffix == ".old" and not left.with_name(match["name"]).exists():
            left.rename(left.with_name(match["name"]))  # killed between the two renames
        elif match:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _delete(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk. Windows can't open a folder."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows flushes what is open for writing
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
