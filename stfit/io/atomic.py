"""Files and folders on disk that a reader finds whole or not at all, whenever the writer dies.

What is new is written beside its name, with `.tmp` at the end, flushed to the disk, and only then renamed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from stfit.distributed import is_rank_zero
from stfit.errors import ResourceError, StfitError


@contextmanager
def wrap_os_errors(path: Path) -> Iterator[None]:
    """Name `path` in a ResourceError where it can't be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"{path}: can't be written, what was there before is kept: {error}") from error


def atomic_write(path: Path, text: str) -> None:
    """Write a file, if this is the first process. Raises ResourceError, and then leaves the old one."""
    if not is_rank_zero():
        return
    with wrap_os_errors(path):
        scratch = path.with_name(path.name + ".tmp")
        scratch.write_text(text, encoding="utf-8")
        sync(scratch)
        scratch.replace(path)
        sync(path.parent)


def scratch_of(folder: Path) -> Path:
    """Where a folder is written until it is whole."""
    return folder.with_name(folder.name + ".tmp")


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which afterwards takes the place of `folder`.

    Raises ResourceError where something can't be written. After any error the old one stays, and nothing beside it.
    """
    scratch = scratch_of(folder)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with wrap_os_errors(folder):
            scratch.mkdir(parents=True)
            yield scratch
            _commit_directory(scratch, folder)
    except StfitError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _commit_directory(scratch: Path, folder: Path) -> None:
    """Give a finished folder its name, once it is on the disk; the one that had it before is gone only after."""
    for path in (*scratch.rglob("*"), scratch):
        sync(path)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def discard(folder: Path) -> None:
    """Delete a folder; a half-deleted one does not have its name."""
    scratch = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    folder.rename(scratch)
    shutil.rmtree(scratch)


def recover(parent: Path) -> None:
    """Finish or undo what a writer that died left in `parent`."""
    for scratch in parent.glob("*.tmp"):
        shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink()
    for old in parent.glob("*.old"):
        folder = old.with_suffix("")
        if folder.exists():
            shutil.rmtree(old)
        else:  # died after the old one lost its name, before the new one had it
            old.rename(folder)


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
