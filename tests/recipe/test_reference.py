"""What is generated is current, and says all that the classes know."""

from pathlib import Path

import pytest

from stfit.errors import StfitError
from stfit.evaluation.registry import EVALUATORS
from stfit.losses.registry import LOSSES
from stfit.recipe.recipe import Recipe
from stfit.recipe.reference import metric_names, reference_page
from stfit.recipe.schema import json_schema, schema_page

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def page() -> str:
    return reference_page()


def test_the_stored_page_is_current(page):
    assert (RECIPES / "README.md").read_text(encoding="utf-8") == page, "run `make docs`"


def test_the_stored_schema_is_current():
    assert (RECIPES / "recipe.schema.json").read_text(encoding="utf-8") == schema_page(Recipe), "run `make docs`"


def test_all_metrics_are_named(page):
    lines = metric_names().splitlines()
    for evaluator in EVALUATORS:
        (line,) = (line for line in lines if line.startswith(f"{evaluator.tag()}: "))
        for metric in evaluator.model_construct().metrics:
            assert metric in line.partition(": ")[2].split(", ")
            assert f"`{metric}`" in page


def test_every_key_of_every_section_has_a_line_with_its_words(page):
    lines = page.replace("\\|", "|").splitlines()
    for name, definition in json_schema(Recipe)["definitions"].items():
        for key, part in definition["properties"].items():
            said = " ".join(part.get("description", "").split())
            told = [line for line in lines if line.startswith(f"| `{key}` |") and line.endswith(f"{said} |")]
            assert told or key == "type", f"{name}.{key}"


def test_every_choice_has_a_heading_with_its_class_name_of_sentence_transformers(page):
    for loss in LOSSES:
        section = page.split(f"### `loss`: `{loss.tag()}`\n")[1].split("\n#")[0]
        assert all(f"`{name}`" in section for name in loss.aliases)


def test_every_loss_stands_beside_each_format_it_fits(page):
    rows = [line for line in page.split("## Formats and losses")[1].split("##")[0].splitlines() if line[:3] == "| `"]
    for loss in LOSSES:
        told = {row.split("`")[1] for row in rows if f"`{loss.tag()}`" in row}
        fits = [fit for fit in loss.fits if fit.label != "none" or not fit.format.startswith("labeled")]
        assert told == {fit.format for fit in fits}


def test_every_exit_code_is_explained(page):
    codes = page.split("## Exit codes")[1]
    for error in StfitError.__subclasses__():
        assert f"| {error.__name__} |" in codes


def test_no_table_is_broken_by_a_bar_in_a_description(page):
    for table in page.split("\n\n"):
        widths = {line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(widths) <= 1, table


@pytest.mark.parametrize("recipe", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_names_the_schema_that_is_beside_it(recipe):
    modeline = recipe.read_text(encoding="utf-8").splitlines()[0]
    named = modeline.removeprefix("# yaml-language-server: $schema=")
    assert (recipe.parent / named).samefile(RECIPES / "recipe.schema.json")
