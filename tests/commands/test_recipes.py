"""Every recipe that comes with stfit is right, and so is its data where that comes with stfit too."""

from pathlib import Path

import pytest

from stfit.data.source import is_remote
from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import teacher_of
from stfit.workflows.check.validate import load_and_validate

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))
every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER)))


def test_there_are_recipes():
    assert len(RECIPES) >= 5


@every_recipe
def test_recipe_is_valid_and_says_how_it_is_run(path):
    load_recipe(path)
    assert f"stfit train recipes/{path.relative_to(FOLDER)}" in path.read_text(encoding="utf-8")


@every_recipe
def test_data_of_the_recipe_loads_where_it_is_local(path):
    recipe = load_recipe(path).recipe
    sources = [objective.data.dataset for objective in recipe.objectives_by_path.values()]
    datasets = [*sources, *(evaluator.dataset for evaluator in recipe.eval if evaluator.dataset)]
    teachers = list(filter(None, map(teacher_of, recipe.losses_by_path.values())))
    if isinstance(recipe.model.base, str) or teachers or any(is_remote(dataset) for dataset in datasets):
        pytest.skip("its base, its teacher or its data is on the Hub")
    prepared = load_and_validate(recipe)
    assert all(len(examples) > 0 for examples in prepared.training)
    assert all(len(examples) > 0 for examples in prepared.evaluation)
