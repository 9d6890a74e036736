"""stfit.lock: record the inputs of a run and report what has changed since."""

import json
import platform
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stfit.data.mapping.examples import Examples
from stfit.data.reading.local_files import fingerprint_files
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
"""Sections of a recipe that affect training; the others can change without a new training."""
PACKAGES = ("stfit", "torch", "transformers", "tokenizers", "datasets", "numpy")
LOCK = "stfit.lock"
LOCATION_KEYS = ("dataset", "base", "vectors", "weights")
"""Keys of a lock whose values are paths or Hub ids."""

Lock = dict[str, Any]


def training_sections(recipe: Recipe) -> dict[str, Any]:
    drops_overlap = any(objective.data.drop_overlap for objective in recipe.objectives_by_path.values())
    sections = {*TRAINING_SECTIONS, *(["eval"] if drops_overlap else [])}  # evaluators then choose the training rows
    return recipe.model_dump(mode="json", by_alias=True, include=sections)


def build_lock(given: Recipe, pinned: Recipe, training: Sequence[Examples], threads: int, processes: int = 1) -> Lock:
    """Inputs from the Hub have a commit, taken from `pinned`; rows and local models have a fingerprint."""
    sources = [objective.data for objective in pinned.objectives_by_path.values()]
    rows = map(_describe_rows, sources, training)
    return {
        "recipe": training_sections(given),
        **describe_inputs(pinned),
        "data": [_describe_source(source) | content for source, content in zip(sources, rows, strict=True)],
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "threads": threads,
        "processes": processes,
        "eval": {evaluator.label: _describe_source(evaluator) for evaluator in pinned.eval if evaluator.dataset},
    }


def describe_inputs(pinned: Recipe) -> Lock:
    """Base, teachers and datasets with their commits; no rows are read."""
    teachers = [objective.teacher for objective in pinned.objectives_by_path.values() if objective.teacher]
    return {
        "base": _describe_model(pinned.model),
        "data": [_describe_source(objective.data) for objective in pinned.objectives_by_path.values()],
        **({"teachers": list(map(_describe_model, teachers))} if teachers else {}),
    }


def _describe_source(source: Any) -> dict[str, Any]:
    ref = hub_ref(source)
    return {"dataset": source.dataset} | ({"commit": ref.revision} if ref else {})


def _describe_rows(source: TrainingData, examples: Examples) -> dict[str, Any]:
    if not source.streaming:
        return {"rows": len(examples), "fingerprint": examples.fingerprint}
    fingerprint = fingerprint_files(source)
    return {"fingerprint": fingerprint} if fingerprint else {}


def _describe_model(model: Model) -> dict[str, Any]:
    ref, base = hub_ref(model), model.base
    if ref:
        return {"base": ref.id, "commit": ref.revision}
    if not isinstance(base, str):
        return {"base": "scratch"}
    digest = sha256()
    folder = model_folder(Path(base))
    for path in sorted(path for pattern in ("*.json", "*.safetensors") for path in folder.rglob(pattern)):
        digest.update(str(path.relative_to(folder)).encode())
        hash_file(path, digest)
    return {"base": base, "fingerprint": digest.hexdigest()}


def without_local_folders(lock: Any) -> Any:
    if isinstance(lock, list):
        return [without_local_folders(part) for part in lock]
    if not isinstance(lock, dict):
        return lock
    return {
        key: without_folder(value) if key in LOCATION_KEYS and isinstance(value, str) else without_local_folders(value)
        for key, value in lock.items()
    }


def _changes(old: Lock, new: Lock) -> list[str]:
    """Lines `key: old -> new` for all differences other than folders and revisions: commits are compared instead."""
    lines = differences(without_local_folders(old), without_local_folders(new))
    return [line for line in lines if not line.partition(":")[0].endswith(".revision")]


def require_unchanged(file: Path, old: Lock, new: Lock) -> None:
    if lines := _changes(old, new):
        raise LockError(f"{file}: inputs that differ from the lock:\n  " + "\n  ".join(lines))


def is_same_training(old: Lock, new: Lock) -> bool:
    """Whether recipe and inputs equal those of a lock. Packages, threads, processes and evaluators can differ."""
    if _changes({"recipe": old.get("recipe")}, {"recipe": new["recipe"]}):
        return False
    old_inputs, new_inputs = (
        without_local_folders([lock.get("base"), *lock.get("data", []), *lock.get("teachers", [])])
        for lock in (old, new)
    )
    return len(old_inputs) == len(new_inputs) and all(map(is_same_input, old_inputs, new_inputs))


def is_same_input(old: Any, new: dict[str, Any]) -> bool:
    if old == new:
        return True
    return isinstance(old, dict) and any(old.get(key) == new.get(key) is not None for key in ("commit", "fingerprint"))


def load_lock(file: Path) -> Lock:
    try:
        lock = load_json(file)
        if isinstance(lock, dict) and "recipe" in lock:
            return lock
        raise ValueError("no `recipe` in it")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{file}: not a lock ({error}); use the {LOCK} of a run folder") from error


def lock_to_json(lock: Lock) -> str:
    return json.dumps(lock, indent=2) + "\n"
