"""The models that a gate compares a model with."""

from collections.abc import Iterator
from pathlib import Path

from stfit.encoder.build import build_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import ALL_FILES, is_st_model
from stfit.hub.download import download_files, find_newest, with_owner
from stfit.recipe.recipe import Recipe
from stfit.training.rng import seed_everything
from stfit.workflows.check.validate import load_training_rows


def find_baseline(against: str, recipe: Recipe, device: str) -> Encoder | Path | str:
    """The model that `against` names, its folder, or the reason why there is none."""
    if against == "base":
        return build_untrained(recipe, device)
    if against == "published":
        repo = published_repo(recipe)
        if repo is None:
            return "the recipe has no `push.repo`"
        commit = find_newest(repo)
        folder = download_files("model", repo, commit, ALL_FILES) if commit else None
        if folder is None or not is_st_model(folder):
            return f"nothing is published at {repo} yet"
        return folder
    return Path(against)


def build_untrained(recipe: Recipe, device: str) -> Encoder:
    def texts() -> Iterator[str]:
        for objective in recipe.objectives_by_path.values():
            yield from load_training_rows(recipe, objective)[0].all_texts()

    seed_everything(recipe.seed)
    return build_encoder(recipe.model, texts, device)


def published_repo(recipe: Recipe) -> str | None:
    return with_owner(recipe.push.repo) if recipe.push else None
