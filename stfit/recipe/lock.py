"""stfit.lock: record the inputs of a run and report what has changed since."""

import json
import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from stfit.data.mapping.examples import Examples
from stfit.data.source import TrainingData
from stfit.errors import LockError, RecipeError
from stfit.io.json_files import find_misfit, load_json
from stfit.paths import without_folder
from stfit.recipe.inputs import describe_inputs, fingerprint_rows
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import differences

TRAINING_SECTIONS = ("model", "data", "loss", "objectives", "train", "seed")
"""Sections of a recipe that affect training; the others can change without a new training."""
PACKAGES = ("stfit", "torch", "transformers", "tokenizers", "datasets", "numpy")
LOCK = "stfit.lock"
MAX_WRITERS = 20
"""More different cells are no names of methods."""
LOCATION_KEYS = ("dataset", "base", "vectors", "weights", "teacher")
"""Keys of a lock whose values are paths or Hub ids."""
IDENTITIES = ("commit", "bytes", "fingerprint")
"""Keys that identify an input: by its repository, its files, or the rows in them. One that is equal is enough."""
DIGESTS = ("bytes", "fingerprint", "files")
"""Keys that a lock of an earlier version may lack."""

Lock = dict[str, Any]


class Computation(BaseModel):
    """What `auto` chose on the machine of a run."""

    attention: Literal["fused", "packed", "padded", "auto"]
    precision: Literal["float32", "bfloat16", "float16"]


def training_sections(recipe: Recipe) -> dict[str, Any]:
    drops_overlap = any(objective.data.drop_overlap for objective in recipe.objectives_by_path.values())
    sections = {*TRAINING_SECTIONS, *(["eval"] if drops_overlap else [])}  # evaluators then choose the training rows
    # How long processes wait for each other changes nothing that they compute.
    return recipe.model_dump(mode="json", by_alias=True, include=sections, exclude={"train": {"timeout_minutes"}})


def with_computation_of(lock: Lock, recipe: Recipe) -> Recipe:
    """The recipe with the attention and the precision of `lock`: results should not drift with the machines."""
    if "computation" not in lock:  # of an earlier version
        return recipe
    computation = Computation(**lock["computation"])
    model = recipe.model.model_copy(update={"attention": computation.attention})
    train = recipe.train.model_copy(update={"precision": computation.precision})
    return recipe.model_copy(update={"model": model, "train": train})


def build_lock(
    given: Recipe,
    pinned: Recipe,
    training: Sequence[Examples],
    evaluation: Sequence[Any],
    threads: int,
    processes: int = 1,
) -> Lock:
    """Inputs from the Hub have a commit, taken from `pinned`; rows and local files have a fingerprint."""
    inputs, objectives = describe_inputs(pinned), pinned.objectives_by_path.values()
    read = [_describe_examples(objective.data, rows) for objective, rows in zip(objectives, training, strict=True)]
    evaluated = {
        evaluator.label: {"fingerprint": digest}
        for evaluator, rows in zip(pinned.eval, evaluation, strict=True)
        if evaluator.label in inputs["eval"] and (digest := fingerprint_rows(rows))
    }
    return {
        "recipe": training_sections(given),
        **inputs,
        "data": [part | rows for part, rows in zip(inputs["data"], read, strict=True)],
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "threads": threads,
        "processes": processes,
        "eval": {label: part | evaluated.get(label, {}) for label, part in inputs["eval"].items()},
    }


def _describe_examples(source: TrainingData, examples: Examples) -> dict[str, Any]:
    if source.streaming:
        return {}
    generated = dict(Counter(filter(None, examples.generated_by or ())))
    facts = {"rows": len(examples), "fingerprint": examples.fingerprint}
    return facts | ({"generated": generated} if 0 < len(generated) <= MAX_WRITERS else {})


def without_local_folders(lock: Any) -> Any:
    if isinstance(lock, list):
        return [without_local_folders(part) for part in lock]
    if not isinstance(lock, dict):
        return lock
    return {
        key: without_folder(value) if key in LOCATION_KEYS and isinstance(value, str) else without_local_folders(value)
        for key, value in lock.items()
    }


def changes(old: Lock, new: Lock) -> list[str]:
    """Lines `key: old -> new` for all differences other than folders and revisions: commits are compared instead."""
    if not ("computation" in old and "computation" in new):  # of an earlier version, or not yet known
        old, new = ({key: lock[key] for key in lock if key != "computation"} for lock in (old, new))
    old, new = without_local_folders(old), without_local_folders(new)
    lines = differences(_without_bytes_of_rows(old), _without_bytes_of_rows(_known_to(old, new)))
    return [line for line in lines if not line.partition(":")[0].endswith(".revision")]


def _known_to(old: Any, new: Any) -> Any:
    """`new` without the digests that `old`, of an earlier version, does not have."""
    if isinstance(old, list) and isinstance(new, list):
        return [_known_to(*pair) for pair in zip(old, new, strict=False)] + new[len(old) :]
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {key: _known_to(old.get(key), value) for key, value in new.items() if key in old or key not in DIGESTS}


def _without_bytes_of_rows(lock: Any, are_rows_known: bool = False) -> Any:
    """Equal rows can come from other files: where the rows have a fingerprint, the bytes of the files do not count."""
    if isinstance(lock, list):
        return [_without_bytes_of_rows(part) for part in lock]
    if not isinstance(lock, dict):
        return lock
    known = are_rows_known or "fingerprint" in lock
    kept = {key: value for key, value in lock.items() if key != "bytes" or not known}
    return {key: _without_bytes_of_rows(value, known) for key, value in kept.items()}


def require_unchanged(file: Path, old: Lock, new: Lock) -> None:
    if lines := changes(old, new):
        raise LockError(f"{file}: inputs that differ from the lock:\n  " + "\n  ".join(lines))


def changes_since(old: Lock, new: Lock) -> list[str]:
    """Differences that matter to a run which began with `old`: evaluators may come and go, and are compared by name."""
    kept = (old.get("eval") or {}).keys() & (new.get("eval") or {}).keys()
    old, new = ({**lock, "eval": {label: lock["eval"][label] for label in sorted(kept)}} for lock in (old, new))
    return changes(old, _in_words_of(old, new))


def training_changes(old: Lock, new: Lock) -> list[str]:
    """Differences of recipe and inputs; packages, threads and processes can differ."""
    sections = ("recipe", "base", "data", "teachers", "eval", "files")
    return changes_since(*({key: lock[key] for key in sections if key in lock} for lock in (old, new)))


def is_same_input(old: Any, new: dict[str, Any]) -> bool:
    if old == new:
        return True
    return isinstance(old, dict) and any(old.get(key) == new.get(key) is not None for key in IDENTITIES)


def _in_words_of(old: Any, new: Any) -> Any:
    """`new`, with `old` in the place of every input that is the same."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [_in_words_of(*pair) for pair in zip(old, new, strict=True)]
    if not isinstance(new, dict):
        return new
    if is_same_input(old, new):
        return old
    return {key: _in_words_of(old.get(key), value) if isinstance(old, dict) else value for key, value in new.items()}


def load_lock(file: Path) -> Lock:
    try:
        lock = load_json(file)
        if not isinstance(lock, dict):
            raise ValueError("no object")
        if key := find_misfit(lock, {"recipe": dict, "eval": dict | None}):
            raise ValueError(f"no section `{key}` in it")
        if "computation" in lock:
            Computation.model_validate(lock["computation"])
        return lock
    except (OSError, ValueError) as error:
        raise RecipeError(f"{file}: not a lock ({error}); use the {LOCK} of a run folder") from error


def lock_to_json(lock: Lock) -> str:
    return json.dumps(lock, indent=2) + "\n"
