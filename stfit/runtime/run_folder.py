"""One training's folder under runs/: what is in it, and whether a recipe goes on with it or starts anew."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stfit.distributed import is_rank_zero, on_rank_zero
from stfit.errors import RecipeError, ResourceError
from stfit.io.atomic import atomic_write, recover, wrap_os_errors
from stfit.io.json_files import load_json_object


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe as given."""
        return self.path / "recipe.yaml"

    @property
    def resolved(self) -> Path:
        """Every value of the recipe, those chosen at run time included."""
        return self.path / "resolved.yaml"

    @property
    def lock(self) -> Path:
        """What the run was made of."""
        return self.path / "stfit.lock"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: steps and evaluations."""
        return self.path / "metrics.jsonl"

    @property
    def record(self) -> Path:
        """What the report shows besides: notes of data and of some rows as the model saw them, before and after."""
        return self.path / "record.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Path:
        """Resumable state."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.path / "model"

    @property
    def result(self) -> Path:
        """What a finished run measured; its presence says that the run finished."""
        return self.path / "result.json"

    @property
    def verdict(self) -> Path:
        """What its gate said when it was last to be published, beside what was published then."""
        return self.path / "gate.json"

    @property
    def tracked(self) -> Path:
        """By which name trackers know the run."""
        return self.path / "tracked.json"

    def read_lock(self) -> dict[str, Any] | None:
        """The lock; None where the run has none yet, or a damaged one."""
        return load_json_object(self.lock)

    def read_result(self) -> dict[str, Any] | None:
        """What a finished run measured; None where it has not finished."""
        return load_json_object(self.result)

    def read_record(self) -> dict[str, Any] | None:
        """The notes for the report; None where there are none, or damaged ones."""
        return load_json_object(self.record)

    def read_verdict(self) -> dict[str, Any] | None:
        """What its gate said; None where it was never asked."""
        return load_json_object(self.verdict)

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl, if this is the first process."""
        if not is_rank_zero():
            return
        with wrap_os_errors(self.metrics), self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        entries = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.is_file() else []:
            try:
                entries.append(json.loads(line))
            except ValueError:  # the last line of a killed run may be half a line
                continue
        return entries

    def truncate_log(self, step: int) -> None:
        """Cut metrics.jsonl back to `step`: a resumed run writes the later lines again."""
        if self.metrics.is_file():
            kept = [entry for entry in self.read_log() if entry["step"] <= step]
            atomic_write(self.metrics, "".join(json.dumps(entry) + "\n" for entry in kept))


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.suffix == ""), reverse=True)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Lines `path: old -> new` for every value that differs."""
    if isinstance(old, list) and isinstance(new, list) and any(isinstance(item, dict) for item in old + new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def _archive(folder: RunFolder) -> Path:
    """Rename a run folder to the first free `<name>.N`."""
    number = 1
    while (kept := folder.path.with_name(f"{folder.path.name}.{number}")).exists():
        number += 1
    with wrap_os_errors(folder.path):
        folder.path.rename(kept)
    return kept


def _holds_files(path: Path) -> bool:
    """Whether there is anything to lose: a run that was killed before its first step leaves empty folders."""
    return any(found.is_file() for found in path.rglob("*"))


def open_folder(path: Path, recipe: dict[str, Any], fresh: bool, resume: bool) -> tuple[RunFolder, list[str]]:
    """The folder to train `recipe` in, and what a user should know of it.

    An unfinished run of the same recipe is gone on with; one of another recipe (or whatever else lies there), or any
    with `fresh`, is put aside. With `resume`, another recipe raises RecipeError instead.
    """
    folder = RunFolder(path)
    notes: list[str] = []
    if _holds_files(path):
        lock = folder.read_lock()
        changed = differences(lock["recipe"], recipe) if lock else ["it has no readable stfit.lock"]
        if resume and changed:
            raise RecipeError(f"--resume: {path} was made by another recipe:\n  " + "\n  ".join(changed))
        if fresh or changed:
            kept = _archive(folder)
            notes = [f"kept the earlier run as {kept}", *(f"  {line}" for line in changed)]
    elif resume:
        raise RecipeError(f"--resume: there is no run in {path}")
    with wrap_os_errors(path):
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        recover(path)
        recover(folder.checkpoints)
    return folder, notes


def _lock_beside(path: Path) -> Path:
    """The file that says who trains in the run folder `path`: beside it, since the folder may be put aside then."""
    return path.with_name(f".{path.name}.lock")


def require_shared(path: Path) -> None:
    """Raise ResourceError where this process, on another host, does not see the run folder that the first one holds."""
    holder = on_rank_zero(_lock_beside(path).read_text)
    try:
        seen = _lock_beside(path).read_text()
    except OSError:
        seen = ""
    if seen != holder:
        raise ResourceError(
            f"{path.absolute()}: on {platform.node()}, this is not the run folder of the first process. All hosts have "
            "to see the same folder: put it on a file system that they share (--runs), or have them start in it"
        )


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Keep other runs out of the run folder `path`. The system frees the lock of a process that dies."""
    if not is_rank_zero():  # the first process of this run holds it for all
        yield
        return
    beside = _lock_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = beside.open("a+", encoding="utf-8")
    except OSError as error:
        raise ResourceError(
            f"{beside}: can't be written: {error.strerror}; choose another folder with --runs"
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            raise ResourceError(f"{path} is in use by process {stream.read().strip() or '?'}") from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def is_folder_locked(path: Path) -> bool:
    """Whether a process trains in the run folder `path` now."""
    try:
        with _lock_beside(path).open(encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
