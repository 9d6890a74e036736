"""`stfit fetch`: download everything that a recipe takes from the Hub, for a run without a network."""

from typing import Any

from stfit.encoder.folder.resolve import ALL_FILES, locate
from stfit.errors import HubError
from stfit.recipe.hub_refs import iter_hub_refs, pin
from stfit.recipe.load import LoadedRecipe
from stfit.recipe.recipe import Recipe
from stfit.workflows.check.validate import first_of, validate


def fetch(loaded: LoadedRecipe[Recipe]) -> dict[str, Any]:
    """Raises only HubErrors: other errors of the recipe are left to `stfit check`."""
    recipe: Recipe = pin(loaded.recipe)
    for kind, id, revision in iter_hub_refs(recipe):
        if kind == "model":
            locate(id, revision, ALL_FILES)
    failed = [error for error in validate(recipe, loaded.origins).errors if isinstance(error, HubError)]
    if failed:
        raise first_of(failed)
    inputs = dict.fromkeys(iter_hub_refs(recipe))
    return {"fetched": [{"kind": kind, "id": id, "commit": commit} for kind, id, commit in inputs]}
