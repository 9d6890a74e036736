"""A run that is there already: the checkpoint it goes on from, and what may have moved since that was saved."""

from __future__ import annotations

import logging
from typing import Any

from stfit.distributed import world_size
from stfit.errors import LockError, ModelError
from stfit.io.atomic import atomic_write
from stfit.recipe.dump import to_yaml
from stfit.recipe.load import LoadedRecipe, load_recipe
from stfit.recipe.lock import is_same_input
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import RunFolder, differences
from stfit.training.checkpoint import Checkpoint, frozen_by_lora, newest_checkpoint, restore_checkpoint
from stfit.training.loop import TrainObjects
from stfit.training.state import TrainState

log = logging.getLogger("stfit")


def find_checkpoint(folder: RunFolder) -> Checkpoint | None:
    """The newest whole checkpoint of the run, if there is one."""
    checkpoint, skipped = newest_checkpoint(folder.checkpoints)
    for line in skipped:
        log.warning(line)
    return checkpoint


def with_earlier_choices(recipe: Recipe, folder: RunFolder) -> Recipe:
    """The recipe, with the values that an earlier process of this run chose at run time."""
    earlier = load_recipe(folder.resolved).recipe
    chosen = {name: getattr(earlier, name) for name in ("model", "data", "objectives", "train")}
    return recipe.model_copy(update=chosen)


def restore_or_start(
    folder: RunFolder, checkpoint: Checkpoint | None, learner: TrainObjects, made: dict[str, Any], strict: bool
) -> TrainState:
    """Put everything where the checkpoint left it; what the run remembers.

    What the run is made of may have moved since. That is said, and where `strict`, raises LockError. Other tokens,
    and another base beneath adapters, raise ModelError.
    """
    if checkpoint is None:
        folder.truncate_log(-1)
        return TrainState(processes=world_size())
    moved = differences(checkpoint.facts["made"], made)
    if moved and strict:
        raise LockError(f"--resume: changed since {checkpoint.folder}:\n  " + "\n  ".join(moved))
    for line in moved:
        log.warning("changed since the checkpoint: %s", line)
    if made["tokens"] != checkpoint.facts["made"]["tokens"]:
        raise ModelError(
            f"{checkpoint.folder}: its weights are those of other tokens: a vocabulary that is learnt from the "
            "training texts changes with them. Put the texts back, or start anew with --fresh"
        )
    if frozen_by_lora(learner.encoder) and not is_same_input(checkpoint.facts["made"]["base"], made["base"]):
        raise ModelError(
            f"{checkpoint.folder}: holds adapters of another base, and none of its weights. Put the base back, or "
            "start anew with --fresh"
        )
    restore_checkpoint(checkpoint, learner)
    progress = TrainState(**checkpoint.facts["progress"])
    folder.truncate_log(progress.step)
    log.warning("goes on after step %d", progress.step)
    return progress


def update_run_recipe(folder: RunFolder, loaded: LoadedRecipe[Recipe]) -> None:
    """Write down what a finished run's recipe says now: evaluators, gate and push change without a new training."""
    atomic_write(folder.recipe, loaded.text)
    atomic_write(folder.resolved, to_yaml(with_earlier_choices(loaded.recipe, folder)))
