"""Resume a run: its checkpoint, the recipe it was trained with, and what has changed since."""

import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

from stfit.distributed import world_size
from stfit.encoder.encoder import Encoder
from stfit.errors import LockError, ModelError
from stfit.io.atomic import atomic_write
from stfit.io.json_files import seal_json
from stfit.recipe.dump import to_yaml
from stfit.recipe.hub_refs import pin
from stfit.recipe.load import LoadedRecipe, load_recipe
from stfit.recipe.lock import Lock, changes_since, is_same_input, lock_to_json, training_changes
from stfit.recipe.recipe import Recipe
from stfit.recipe.seal import is_damaged, is_sealed, seal
from stfit.runtime.run_folder import RunFolder, find_damage, put_aside, put_aside_damaged
from stfit.training.checkpoint import Checkpoint, frozen_by_lora, newest_checkpoint, restore_checkpoint
from stfit.training.loop import TrainObjects
from stfit.training.state import TrainState

log = logging.getLogger("stfit")


def pin_or_reuse(recipe: Recipe, folder: RunFolder, checkpoint: Checkpoint | None) -> Recipe:
    """The recipe with a commit for every Hub revision; of a run to resume, with the values chosen when it began."""
    if checkpoint is None:
        return pin(recipe)
    restore_resolved(folder, checkpoint)
    return pin(with_earlier_choices(recipe, folder))


def restore_resolved(folder: RunFolder, checkpoint: Checkpoint | None = None) -> None:
    """Write resolved.yaml again from the newest checkpoint, if it is missing or damaged."""
    text = folder.resolved.read_text(encoding="utf-8", errors="replace") if folder.resolved.is_file() else ""
    if not is_damaged(text) and is_sealed(text):
        return
    checkpoint = checkpoint or newest_checkpoint(folder.checkpoints)
    kept = checkpoint.facts.get("resolved") if checkpoint else None
    if kept is None:  # of an earlier version, which wrote no digests
        return
    if text:
        put_aside_damaged(folder.resolved)
    log.warning("%s: was missing or damaged, and is written again from the newest checkpoint", folder.resolved)
    atomic_write(folder.resolved, kept)


def with_earlier_choices(recipe: Recipe, folder: RunFolder) -> Recipe:
    earlier = load_recipe(folder.resolved).recipe
    chosen = {name: getattr(earlier, name) for name in ("model", "data", "objectives", "train")}
    return recipe.model_copy(update=chosen)


def fingerprint_run(lock: Lock, tokenizer: str) -> dict[str, Any]:
    """Everything that a resumed run is compared by. `tokenizer`: its fingerprint."""
    return lock | {"tokens": sha256(tokenizer.encode()).hexdigest()}


def unless_inputs_changed(
    folder: RunFolder, checkpoint: Checkpoint | None, encoder: Encoder, fingerprint: dict[str, Any], keeps: bool
) -> Checkpoint | None:
    """The checkpoint; None, and the run is put aside, if it was trained on other inputs: half of them are in no lock.

    `keeps`: take it all the same. What `restore_or_start` refuses is left to it.
    """
    if checkpoint is None or keeps or _misfit(checkpoint.facts["made"], fingerprint, encoder):
        return checkpoint
    changed = training_changes(checkpoint.facts["made"], fingerprint)
    for note in put_aside(folder, [f"changed since the checkpoint: {line}" for line in changed]) if changed else []:
        log.warning(note)
    return None if changed else checkpoint


def _misfit(saved: dict[str, Any], fingerprint: dict[str, Any], encoder: Encoder) -> str | None:
    """Why the weights of a checkpoint belong to another model."""
    if fingerprint["tokens"] != saved["tokens"]:
        return (
            "its weights belong to another vocabulary, which was learned from other training texts. Restore the "
            "texts, or start a new run with --fresh"
        )
    if frozen_by_lora(encoder) and not is_same_input(saved["base"], fingerprint["base"]):
        return "holds adapters of another base. Restore the base, or start a new run with --fresh"
    return None


def restore_or_start(
    folder: RunFolder,
    checkpoint: Checkpoint | None,
    objects: TrainObjects,
    fingerprint: dict[str, Any],
    strict: bool,
) -> TrainState:
    """Changes since the checkpoint are logged, or raise LockError if `strict`."""
    if checkpoint is None:
        folder.truncate_log(-1)
        return TrainState(processes=world_size())
    saved: dict[str, Any] = checkpoint.facts["made"]
    changes = changes_since(saved, fingerprint)
    if changes and strict:
        raise LockError(f"--resume: changed since {checkpoint.folder}:\n  " + "\n  ".join(changes))
    for line in changes:
        log.warning("changed since the checkpoint: %s", line)
    if misfit := _misfit(saved, fingerprint, objects.encoder):
        raise ModelError(f"{checkpoint.folder}: {misfit}")
    restore_checkpoint(checkpoint, objects)
    state = TrainState(**checkpoint.facts["progress"])
    if state.best is not None and (damage := find_damage(folder, state.weights)):
        log.warning("%s: the best model so far is lost, and the next evaluation decides anew", damage)
        state.best = state.best_step = None
    folder.truncate_log(state.step)
    log.warning("resuming after step %d", state.step)
    return state


def write_run_recipe(folder: RunFolder, text: str, resolved: Recipe, lock: Lock) -> dict[Path, str]:
    """Write the files that say what a run is; returns them, for `TrainingSession.restore_files`."""
    files = {
        folder.lock: lock_to_json(lock),  # first: it decides whose folder this is
        folder.recipe: text,
        folder.resolved: seal(to_yaml(resolved)),
    }
    for path, content in files.items():
        atomic_write(path, content)
    return files


def update_run_recipe(folder: RunFolder, loaded: LoadedRecipe[Recipe], finished: dict[str, Any]) -> dict[str, Any]:
    """Update the recipe of a finished run: its evaluators, gate and push may change without a new training.

    Returns what is kept of the run, without verdicts on a gate that has changed since.
    """
    restore_resolved(folder)
    if "gate" in finished["result"] and load_recipe(folder.resolved).recipe.gate != loaded.recipe.gate:
        log.warning("the gate has changed since %s finished: `stfit eval` holds the model against it", folder.path)
        result = {key: value for key, value in finished["result"].items() if key != "gate"}
        finished = finished | {"result": result}
        atomic_write(folder.result, seal_json(finished))
    atomic_write(folder.recipe, loaded.text)
    atomic_write(folder.resolved, seal(to_yaml(with_earlier_choices(loaded.recipe, folder))))
    return finished
