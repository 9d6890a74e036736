"""Where a command may write: tried before its work begins, and never over what it reads."""

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile

from stfit.errors import RecipeError, ResourceError
from stfit.io.atomic import wrap_os_errors

TRIAL = b"\0" * 4096


def require_output(path: Path, inputs: Iterable[Path], is_folder: bool = False) -> None:
    """Raises RecipeError if writing to `path` would replace an input, ResourceError if nothing can be written there.

    A folder among the inputs stands for all files in it.
    """
    files = chain.from_iterable([given, *(given.rglob("*") if path.is_file() else [])] for given in inputs)
    for given in files:
        if _is_same(path, given) or (path.is_dir() and given.resolve().is_relative_to(path.resolve())):
            by_name = "" if path == given else f", as {given}"
            raise RecipeError(f"{path}: this command reads it{by_name}: choose another output")
    if not path.parent.is_dir():
        raise ResourceError(f"{path}: can't be written: the folder {path.parent} does not exist")
    if path.is_dir() and not is_folder:
        raise RecipeError(f"{path}: can't be written: it is a folder")
    if is_folder and path.exists() and not path.is_dir():
        raise RecipeError(f"{path}: can't be written: it is no folder, and the output is one: choose another name")
    if path.exists() and not (path.is_file() or path.is_dir()):
        return  # a device or a pipe, such as /dev/stdout
    target = Path(os.path.realpath(path))
    with wrap_os_errors(path), NamedTemporaryFile(dir=target.parent, prefix=f"{target.name}.") as trial:
        trial.write(TRIAL)
        trial.flush()


def _is_same(path: Path, other: Path) -> bool:
    """By any spelling, through links, and as a hard link."""
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them does not exist yet
        return os.path.realpath(path) == os.path.realpath(other)
