"""stfit.lock: what a training is made of, and what of that is no longer the same."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stfit.data.mapping.examples import Examples
from stfit.data.reading.block_reader import fingerprint_of
from stfit.data.source import TrainingData
from stfit.encoder.config import Model
from stfit.encoder.folder.resolve import model_folder
from stfit.errors import LockError, RecipeError
from stfit.io.hashing import hash_file
from stfit.io.json_files import load_json
from stfit.paths import without_folder
from stfit.recipe.hub_refs import hub_ref
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import differences

TRAINING_SECTIONS = ("model", "data", "loss", "objectives", "train", "seed")
"""Sections of a recipe that decide what is trained; the others may change without a new training."""
PACKAGES = ("stfit", "torch", "transformers", "tokenizers", "datasets", "numpy")
LOCK = "stfit.lock"
LOCATION_KEYS = ("dataset", "base", "vectors", "weights")
"""Keys of a lock whose texts are locations."""

Lock = dict[str, Any]


def training_sections(recipe: Recipe) -> dict[str, Any]:
    """What decides the weights, as plain data: two recipes that agree here are one training."""
    part: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, include=set(TRAINING_SECTIONS))
    return part


def build_lock(given: Recipe, pinned: Recipe, training: Sequence[Examples], threads: int, processes: int = 1) -> Lock:
    """What a training is made of: the recipe, its base, rows, versions, threads and processes; and what measures it.

    What comes from the Hub has the commit that `pinned` names; rows, and a base of this machine, a fingerprint.
    """
    sources = [objective.data for objective in pinned.objectives_by_path.values()]
    rows = [_describe_rows(*each) for each in zip(sources, training, strict=True)]
    return {
        "recipe": training_sections(given),
        **describe_inputs(pinned),
        "data": [source | found for source, found in zip(describe_inputs(pinned)["data"], rows, strict=True)],
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "threads": threads,
        "processes": processes,
        "eval": {each.label: _describe_source(each) for each in pinned.eval if each.dataset},
    }


def describe_inputs(pinned: Recipe) -> Lock:
    """Base and data of a recipe as far as they are known without reading rows: ids and commits."""
    teachers = [objective.teacher for objective in pinned.objectives_by_path.values() if objective.teacher]
    return {
        "base": _describe_model(pinned.model),
        "data": [_describe_source(objective.data) for objective in pinned.objectives_by_path.values()],
        **({"teachers": list(map(_describe_model, teachers))} if teachers else {}),
    }


def _describe_source(source: Any) -> dict[str, Any]:
    """A dataset, with its commit where it is on the Hub."""
    found = hub_ref(source)
    return {"dataset": source.dataset} | ({"commit": found.revision} if found else {})


def _describe_rows(source: TrainingData, examples: Examples) -> dict[str, Any]:
    """The rows that are trained on: their number and fingerprint, or of a stream the fingerprint of its files."""
    if not source.streaming:
        return {"rows": len(examples), "fingerprint": examples.fingerprint}
    fingerprint = fingerprint_of(source)
    return {"fingerprint": fingerprint} if fingerprint else {}


def _describe_model(model: Model) -> dict[str, Any]:
    """A base or a teacher, with its commit, or with a fingerprint of its files."""
    found, base = hub_ref(model), model.base
    if found:
        return {"base": found.id, "commit": found.revision}
    if not isinstance(base, str):
        return {"base": "scratch"}
    digest = sha256()
    folder = model_folder(Path(base))
    for path in sorted(path for pattern in ("*.json", "*.safetensors") for path in folder.rglob(pattern)):
        digest.update(str(path.relative_to(folder)).encode())
        hash_file(path, digest)
    return {"base": base, "fingerprint": digest.hexdigest()}


def without_local_folders(lock: Any) -> Any:
    """The lock without the folders of this machine."""
    if isinstance(lock, list):
        return [without_local_folders(part) for part in lock]
    if not isinstance(lock, dict):
        return lock
    return {
        key: without_folder(value) if key in LOCATION_KEYS and isinstance(value, str) else without_local_folders(value)
        for key, value in lock.items()
    }


def _changes(old: Lock, new: Lock) -> list[str]:
    """Lines `key: old -> new` for what differs, wherever the files lie.

    A revision is what it led to: the commit counts, not whether it was called `main`.
    """
    lines = differences(without_local_folders(old), without_local_folders(new))
    return [line for line in lines if not line.partition(":")[0].endswith(".revision")]


def require_unchanged(file: Path, old: Lock, new: Lock) -> None:
    """Raises LockError, with every difference, where a training would not be that of the lock."""
    if lines := _changes(old, new):
        raise LockError(f"{file} is of another training:\n  " + "\n  ".join(lines))


def is_same_training(old: Lock, new: Lock) -> bool:
    """Whether a recipe and its inputs are those of a lock; packages, threads, processes and evaluators may differ.

    An input is the same by its commit, or else by its fingerprint.
    """
    if _changes({"recipe": old.get("recipe")}, {"recipe": new["recipe"]}):
        return False
    was, now = ([lock.get("base"), *lock.get("data", []), *lock.get("teachers", [])] for lock in (old, new))
    return len(was) == len(now) and all(map(is_same_input, without_local_folders(was), without_local_folders(now)))


def is_same_input(was: Any, now: dict[str, Any]) -> bool:
    """Whether two descriptions are of the same files or rows."""
    if was == now:
        return True
    return isinstance(was, dict) and any(was.get(key) == now.get(key) is not None for key in ("commit", "fingerprint"))


def load_lock(file: Path) -> Lock:
    """A lock. Raises RecipeError where there is none, or it is damaged."""
    try:
        found = load_json(file)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{file} can't be read as a lock, like the {LOCK} in a run folder: {error}") from error
    if not isinstance(found, dict) or "recipe" not in found:
        raise RecipeError(f"{file} is no lock: {LOCK} of a run folder is one")
    return found


def lock_to_json(lock: Lock) -> str:
    """The text of a lock."""
    return json.dumps(lock, indent=2) + "\n"
