"""Whether training would repeat what is there: a finished run, or the published model (`train --skip-unchanged`)."""

import logging
from typing import Any

from stfit.errors import HubError, RecipeError
from stfit.hub.download import download_files, find_newest
from stfit.hub.explain import OUT_OF_REACH
from stfit.recipe.hub_refs import pin
from stfit.recipe.inputs import describe_inputs
from stfit.recipe.load import LoadedRecipe
from stfit.recipe.lock import LOCK, Lock, build_lock, load_lock, training_changes, training_sections
from stfit.recipe.recipe import Recipe
from stfit.workflows.check.validate import load_and_validate
from stfit.workflows.evaluate.baselines import published_repo

log = logging.getLogger("stfit")


def find_unchanged(loaded: LoadedRecipe[Recipe]) -> dict[str, Any] | None:
    """The published model, if training would reproduce it."""
    repo = published_repo(loaded.recipe)
    if repo is None:
        raise RecipeError("--skip-unchanged compares with the published model: add `push: {repo: ...}` to the recipe")
    commit = find_newest(repo)
    file = download_files("model", repo, commit, [LOCK]) / LOCK if commit else None
    if file is None or not file.is_file() or find_changes(loaded, load_lock(file)):
        return None
    return {"unchanged": True, "repo": repo, "commit": commit}


def find_changes(loaded: LoadedRecipe[Recipe], lock: Lock) -> list[str]:
    """What differs from a lock. Commits and files are compared first, so that no row is read if they are equal."""
    pinned: Recipe = pin(loaded.recipe)
    described = {"recipe": training_sections(loaded.recipe), **describe_inputs(pinned)}
    if not training_changes(lock, described):
        return []
    prepared = load_and_validate(pinned, loaded.origins)
    return training_changes(lock, build_lock(loaded.recipe, pinned, prepared.training, prepared.evaluation, threads=0))


def changes_of_finished(loaded: LoadedRecipe[Recipe], lock: Lock, strict: bool) -> list[str]:
    """The changes since a run finished; none, with a warning unless `strict`, if the Hub is out of reach."""
    try:
        return find_changes(loaded, lock)
    except HubError as error:
        if strict or any(problem.code != OUT_OF_REACH for problem in error.problems):
            raise
        log.warning("whether the inputs have changed since is not known: %s", error)
        return []
