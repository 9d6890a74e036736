"""Only what a recipe writes is a pattern; the folder it stands in may have any name."""

import json

import datasets
import pytest

from stfit.data.reading.load_table import load_table
from stfit.errors import DataError
from stfit.recipe.dump import to_yaml
from stfit.recipe.load import load_recipe

NAMES = ["a[b]", "a*", "a?", "[!x]", 'it\'s "one" #2 100%', "東京", "e\u0301 a\u0300"]
RECIPE = "model: {base: x/y}\ndata: {dataset: %s, format: positive_pair}\nloss: multiple_negatives_ranking\n"


def lines(text):
    return json.dumps({"anchor": text, "positive": text}) + "\n"


@pytest.fixture(params=NAMES)
def folder(request, tmp_path):
    """A folder of this name, beside folders that its name as a pattern would match."""
    for other in ("ab", "a", "ax", "y", "b"):
        (tmp_path / other).mkdir()
        for name in ("rows.jsonl", "rows-2.jsonl", "gone.jsonl"):
            (tmp_path / other / name).write_text(lines("of another folder"))
    own = tmp_path / request.param
    own.mkdir()
    for name in ("rows.jsonl", "rows-2.jsonl", "[1] rows.jsonl"):
        (own / name).write_text(lines(name))
    return own


def recipe_in(folder, dataset):
    (folder / "recipe.yaml").write_text(RECIPE % json.dumps(dataset))
    return load_recipe(folder / "recipe.yaml").recipe


def anchors(recipe):
    return load_table(recipe.data).columns["anchor"]


def read_again(recipe, folder):
    (folder / "resolved.yaml").write_text(to_yaml(recipe))
    return load_recipe(folder / "resolved.yaml").recipe


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("./rows.jsonl", ["rows.jsonl"]),
        ("rows*.jsonl", ["rows-2.jsonl", "rows.jsonl"]),
        ("./[r]ows.json?", ["rows.jsonl"]),
        ("./[1] rows.jsonl", ["[1] rows.jsonl"]),
        ("./[[]1] *.jsonl", ["[1] rows.jsonl"]),
    ],
)
def test_a_recipe_reads_its_own_folder_whatever_its_name(folder, written, read):
    recipe = recipe_in(folder, written)
    assert anchors(recipe) == read
    assert anchors(read_again(recipe, folder)) == read
    assert read_again(recipe, folder).data.dataset == recipe.data.dataset


def test_a_saved_dataset_is_read_in_any_folder(folder):
    datasets.Dataset.from_list([{"anchor": "a", "positive": "b"}]).save_to_disk(folder / "saved #%20")
    assert anchors(recipe_in(folder, "./saved #%20")) == ["a"]


def test_a_file_that_is_gone_is_not_looked_for_in_other_folders(folder):
    with pytest.raises(DataError, match="does not exist"):
        anchors(recipe_in(folder, "./gone.jsonl"))
    recipe = recipe_in(folder, "./rows.jsonl")
    (folder / "rows.jsonl").unlink()
    with pytest.raises(DataError, match="does not exist"):
        anchors(read_again(recipe, folder))
    with pytest.raises(DataError, match="no file matches"):
        anchors(recipe_in(folder, "./gone*.jsonl"))
