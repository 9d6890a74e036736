"""Only what a recipe writes is a pattern; the folder it stands in may have any name."""

import json

import datasets
import pytest

from stfit.data.reading.load_table import find_splits, load_table
from stfit.data.source import TableSource
from stfit.errors import DataError
from stfit.hub.explain import not_cached
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


@pytest.mark.parametrize(
    "address",
    [
        "https://host.org/rows.jsonl",
        "https://host.org/rows.csv?download=true",
        "hf://datasets/a/b/rows.jsonl",
    ],
)
def test_an_address_is_no_path(address):
    source = TableSource(dataset=address)
    with pytest.raises(DataError, match=f"`{address.partition('//')[0]}//...` is an address and no path"):
        find_splits(source)


@pytest.mark.parametrize("id", ["https://huggingface.co/owner/name", "hf://owner/name", "a/b/c", "C:\\models\\x", "é"])
def test_what_can_be_no_id_is_told_so_offline_too(id):
    assert "is not a valid id of a model on the Hub" in not_cached("model", id).message
    assert "not in the cache" in not_cached("model", "owner/name-1.5_b").message
