"""`stfit train --skip-unchanged`: whether a training would only make the published model again."""

from __future__ import annotations

from typing import Any

from stfit.errors import RecipeError
from stfit.hub.download import fetch, find_newest
from stfit.recipe.hub_refs import pin
from stfit.recipe.load import LoadedRecipe
from stfit.recipe.lock import LOCK, Lock, build_lock, describe_inputs, is_same_training, load_lock, training_sections
from stfit.recipe.recipe import Recipe
from stfit.workflows.baselines import published_repo
from stfit.workflows.validate import load_and_validate


def find_unchanged(loaded: LoadedRecipe[Recipe]) -> dict[str, Any] | None:
    """Repository and commit of the published model that was trained by this recipe on these inputs, if it was.

    Commits decide first, so that nothing is read where they are the same. Raises RecipeError where the recipe does not
    say where it publishes, and whatever loading its data raises.
    """
    repo = published_repo(loaded.recipe)
    if repo is None:
        raise RecipeError("--skip-unchanged compares with the published model: say `push: {repo: ...}` in the recipe")
    published = _read_published(repo)
    if published is None:
        return None
    commit, lock = published
    pinned: Recipe = pin(loaded.recipe)
    same = is_same_training(lock, {"recipe": training_sections(loaded.recipe), **describe_inputs(pinned)})
    if not same:
        training = load_and_validate(pinned, loaded.origins).training
        same = is_same_training(lock, build_lock(loaded.recipe, pinned, training, threads=0))
    return {"unchanged": True, "repo": repo, "commit": commit} if same else None


def _read_published(repo: str) -> tuple[str, Lock] | None:
    """Commit and lock of a published model; None where there is no such repository, or no lock in it."""
    commit = find_newest(repo)
    file = fetch("model", repo, commit, [LOCK]) / LOCK if commit else None
    return (commit, load_lock(file)) if commit and file and file.is_file() else None
