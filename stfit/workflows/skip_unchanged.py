"""`stfit train --skip-unchanged`: whether training would reproduce the published model."""

from typing import Any

from stfit.errors import RecipeError
from stfit.hub.download import download_files, find_newest
from stfit.recipe.hub_refs import pin
from stfit.recipe.load import LoadedRecipe
from stfit.recipe.lock import LOCK, build_lock, describe_inputs, is_same_training, load_lock, training_sections
from stfit.recipe.recipe import Recipe
from stfit.workflows.baselines import published_repo
from stfit.workflows.validate import load_and_validate


def find_unchanged(loaded: LoadedRecipe[Recipe]) -> dict[str, Any] | None:
    """Commits are compared first, so that no data is read if they are equal."""
    repo = published_repo(loaded.recipe)
    if repo is None:
        raise RecipeError("--skip-unchanged compares with the published model: add `push: {repo: ...}` to the recipe")
    commit = find_newest(repo)
    file = download_files("model", repo, commit, [LOCK]) / LOCK if commit else None
    if file is None or not file.is_file():
        return None
    lock, pinned = load_lock(file), pin(loaded.recipe)
    same = is_same_training(lock, {"recipe": training_sections(loaded.recipe), **describe_inputs(pinned)})
    if not same:
        training = load_and_validate(pinned, loaded.origins).training
        same = is_same_training(lock, build_lock(loaded.recipe, pinned, training, threads=0))
    return {"unchanged": True, "repo": repo, "commit": commit} if same else None
