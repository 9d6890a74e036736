"""The folder of one training under runs/: its files, its lock, and whether a recipe resumes it or starts anew."""

from __future__ import annotations

import glob
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from stfit.distributed import is_rank_zero, on_rank_zero
from stfit.errors import RecipeError, ResourceError
from stfit.io.atomic import atomic_write, recover, wrap_os_errors
from stfit.io.hashing import hash_file
from stfit.io.json_files import Types, find_misfit, load_json_object

log = logging.getLogger("stfit")

SWEEP_SUMMARY = "sweep.json"
"""File in the folder of a sweep, beside its run folders."""

LOCK_PATIENCE = 0.2
"""Seconds to wait for a lock: `stfit runs` holds it for a moment, to see whether it is free."""

NOT_LOADED = ("README.md", "stfit.lock", "loss_curve.png")
"""Files of a model folder that may change without changing the model."""


class _File:
    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: RunFolder, owner: type[RunFolder]) -> Path:
        return folder.path / self.name


LOCK_TYPES: Types = {"recipe": dict, "base": dict, "data": list, "packages": dict, "python": str}
LOCK_TYPES |= {"eval": dict | None, "processes": int | None}
"""Keys of stfit.lock. An earlier version wrote no processes."""

FINISHED_TYPES: Types = {"result": dict, "main": list, "weights": dict | None}
RESULT_TYPES: Types = {"baseline": dict, "metrics": dict, "hardware": str, "steps": int, "peak_rss_mib": int | float}
RESULT_TYPES |= {"examples_per_second": int | float | None, "spent": dict | None, "processes": int | None}
"""Keys of result.json, and those in its `result` that are read again."""

STEP_NUMBERS = ("step", "loss", "learning_rate", "rows")


@dataclass(frozen=True)
class RunFolder:
    path: Path
    recipe = _File("recipe.yaml")
    resolved = _File("resolved.yaml")
    """The recipe with every value, including those chosen at run time."""
    lock = _File("stfit.lock")
    """Commits, fingerprints and versions of the inputs."""
    metrics = _File("metrics.jsonl")
    """One JSON object per line: steps and evaluations."""
    record = _File("record.json")
    """Data for the report."""
    report = _File("report.html")
    checkpoints = _File("checkpoints")
    model = _File("model")
    result = _File("result.json")
    """Result of a finished run; the run has finished if this file exists."""
    verdict = _File("gate.json")
    """Result of the gate at the last attempt to publish."""
    tracked = _File("tracked.json")
    """The run's id at trackers."""

    @property
    def written(self) -> list[Path]:
        """Files and folders that the run writes itself."""
        return [getattr(self, name) for name, value in vars(RunFolder).items() if isinstance(value, _File)]

    def log(self, entry: dict[str, Any]) -> None:
        if is_rank_zero():
            with wrap_os_errors(self.metrics):
                self.path.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it
                with self.metrics.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(entry) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The entries that can be read: a killed run may leave an incomplete line, and a disk any bytes."""
        text = self.metrics.read_text(encoding="utf-8", errors="replace") if self.metrics.is_file() else ""
        entries = []
        for line in text.splitlines():
            with suppress(ValueError, RecursionError):
                entries.append(json.loads(line))
        return list(filter(_is_entry, entries))

    def read_lock(self) -> dict[str, Any] | None:
        """None if the file is missing or damaged."""
        lock = load_json_object(self.lock)
        return None if lock is None or find_misfit(lock, LOCK_TYPES) else lock

    def read_result(self) -> dict[str, Any] | None:
        """None if the run has not finished, or the file is damaged."""
        content = load_json_object(self.result)
        if content is None or find_misfit(content, FINISHED_TYPES) or find_misfit(content["result"], RESULT_TYPES):
            return None
        return content

    def truncate_log(self, step: int) -> None:
        if self.metrics.is_file():
            kept = [entry for entry in self.read_log() if entry["step"] <= step]
            atomic_write(self.metrics, "".join(json.dumps(entry) + "\n" for entry in kept))


def recipe_of_run(path: Path) -> Path | None:
    """The recipe of a run folder, with every path absolute; None for any other folder."""
    run = RunFolder(path)
    return run.resolved if run.recipe.is_file() else None


def _is_entry(entry: Any) -> bool:
    """Whether it is an entry that `log` wrote: a step with its numbers, or an evaluation with nothing but numbers."""
    if not isinstance(entry, dict) or not isinstance(entry.get("event"), str):
        return False
    names = STEP_NUMBERS if entry["event"] == "step" else ("step", *(entry.keys() - {"event"}))
    return all(isinstance(entry.get(name), int | float) for name in names)


def put_aside_damaged(path: Path, reason: str = "is damaged") -> None:
    """Rename a damaged file or folder to NAME.damaged, in the place of an earlier one."""
    aside = path.with_name(f"{path.name}.damaged")
    with wrap_os_errors(path):
        if aside.is_dir():
            shutil.rmtree(aside)
        path.replace(aside)
    log.warning("%s: %s; kept as %s", path, reason, aside.name)


def hash_model(model: Path) -> dict[str, str]:
    """Name, below the folder -> digest of every file that loading reads; earlier versions kept those of weights."""
    files = [path for path in sorted(model.rglob("*")) if path.is_file() and path.name not in NOT_LOADED]
    return {path.relative_to(model).as_posix(): hash_file(path) for path in files}


def find_damage(folder: RunFolder, digests: dict[str, str]) -> str | None:
    """A file of the model that is missing or differs from its digest."""
    for name, digest in digests.items():
        path = folder.model / name
        if not path.is_file() or hash_file(path) != digest:
            return f"{path} is {'damaged' if path.is_file() else 'missing'}"
    return None


def load_result(folder: RunFolder) -> dict[str, Any] | None:
    """The result of a finished run; None, with a warning, if the result or the model is damaged."""
    result = folder.read_result()
    if result is None:
        if folder.result.is_file():
            put_aside_damaged(folder.result)
        return None
    if damage := find_damage(folder, result.get("weights", {})):
        log.warning("%s: it is written again from the newest checkpoint", damage)
        folder.result.unlink()
        return None
    return result


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.suffix == ""), reverse=True)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """A line `path: old -> new` for every value that differs. A key that an earlier stfit did not have was false."""
    if isinstance(old, list) and isinstance(new, list) and any(isinstance(item, dict) for item in old + new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if old == new or (old is None and new is False) else [f"{path}: {old!r} -> {new!r}"]


def put_aside(folder: RunFolder, why: list[str]) -> list[str]:
    """Rename the run to NAME.1, or the next free number, and create an empty folder; returns what to tell the user."""
    names = (folder.path.with_name(f"{folder.path.name}.{number}") for number in count(1))
    with wrap_os_errors(folder.path):
        archive = folder.path.rename(next(path for path in names if not path.exists()))
        folder.checkpoints.mkdir(parents=True)
    return [f"kept the earlier run as {archive}", *(f"  {line}" for line in why)]


@contextmanager
def bring_back_unless_begun(path: Path) -> Iterator[None]:
    """A run that was put aside is back in its place if the new one fails before it writes a file."""
    number = path.stat().st_ino if path.is_dir() else None
    try:
        yield
    except BaseException:
        moved = [run for run in path.parent.glob(f"{glob.escape(path.name)}.*") if run.stat().st_ino == number]
        if is_rank_zero() and moved and not any(file.is_file() for file in path.rglob("*")):
            with wrap_os_errors(path):
                shutil.rmtree(path)
                moved[0].rename(path)
            log.warning("nothing was trained: the earlier run is %s again", path)
        raise


def open_folder(path: Path, recipe: dict[str, Any], fresh: bool, resume: bool) -> tuple[RunFolder, list[str]]:
    """Resumes a run of the same recipe; archives a run of another recipe or other files, and with `fresh` any run."""
    folder = RunFolder(path)
    notes: list[str] = []
    if any(file.is_file() for file in path.rglob("*")):  # a run killed before its first step leaves empty folders
        lock = folder.read_lock()
        changed = differences(lock["recipe"], recipe) if lock else ["its stfit.lock is missing or damaged"]
        if resume and changed:
            raise RecipeError(f"--resume: {path} belongs to another recipe:\n  " + "\n  ".join(changed))
        if fresh or changed:
            notes = put_aside(folder, changed)
    elif resume:
        raise RecipeError(f"--resume: there is no run in {path}")
    with wrap_os_errors(path):
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        recover(path)
        recover(folder.checkpoints)
        recover(folder.model)
    return folder, notes


def _lock_file(path: Path) -> Path:
    """Lies beside the run folder, which may be archived while it is locked, and holds the process id of the owner."""
    return path.with_name(f".{path.name}.lock")


def require_shared(path: Path) -> None:
    owner = on_rank_zero(_lock_file(path).read_text)
    try:
        visible_owner = _lock_file(path).read_text()
    except OSError:
        visible_owner = ""
    if visible_owner != owner:
        raise ResourceError(
            f"{path.absolute()}: on {platform.node()}, this is not the run folder of rank 0. All hosts must see the "
            "same folder: put it on a shared file system (--runs), and start all processes in the same folder"
        )


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """The operating system frees the lock of a process that dies."""
    if not is_rank_zero():  # rank 0 locks it for all
        yield
        return
    lock = FileLock(_lock_file(path), timeout=LOCK_PATIENCE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except Timeout as error:
        owner = _lock_owner(path)
        raise ResourceError(
            f"{path} is in use by process {owner}: wait until it ends, stop it (kill {owner}), or choose another "
            "folder or name"
        ) from error
    except OSError as error:
        raise ResourceError(
            f"{_lock_file(path)}: can't be written: {error.strerror}; choose another folder with --runs"
        ) from error
    with held:  # `with lock` would acquire it once more, and release it once
        with suppress(OSError):  # Windows lets nobody write into a locked file
            _lock_file(path).write_text(str(os.getpid()))
        yield


def _lock_owner(path: Path) -> str:
    with suppress(OSError):
        return _lock_file(path).read_text(errors="replace").strip() or "?"
    return "?"


def is_folder_locked(path: Path) -> bool:
    if not _lock_file(path).exists():
        return False
    try:
        with FileLock(_lock_file(path), timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's, which can't be tried
        owner = _lock_owner(path)
        return owner.isdecimal() and psutil.pid_exists(int(owner))
