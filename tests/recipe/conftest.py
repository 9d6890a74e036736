from pathlib import Path

import pytest

from stfit.errors import RecipeError
from stfit.recipe.load import load_recipe

VALID = """\
version: 1
model:
  base: ./base
  pooling: [mean, cls]
  layers: [{type: dense, out_features: 8, activation: tanh}, normalize]
  prompts: {query: "query: "}
data:
  dataset: ../rows.jsonl
  split: "train[:50%]"
  format: triplet
  columns: {anchor: set.query, positive: "set.pos[0]", negative: ["set.neg[0]", "set.neg[1]"]}
  where: {lang: en, year: {min: 2020, not: [2021]}, topic: [a, b]}
  holdout: {fraction: 0.05}
loss: {type: triplet, margin: 3}
train:
  epochs: 2
  learning_rate: 1e-5
  warmup_steps: null
eval:
  - {type: similarity, name: stsb, dataset: a/stsb, split: validation, when: [start, end]}
  - {type: triplet, name: kept, from: holdout}
"""


@pytest.fixture
def write(tmp_path):
    """Writes a recipe file into a folder of its own and gives its path."""

    def write_file(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def valid() -> str:
    """A recipe that uses most of the language."""
    return VALID


@pytest.fixture
def small() -> str:
    """The shortest recipe, three lines, to which a mistake is added."""
    return "model: {base: a/b}\ndata: {dataset: a/c, format: triplet}\nloss: triplet\n"


@pytest.fixture
def problems_of():
    """What is wrong with a recipe; the test fails where nothing is."""

    def refuse(path, *overrides):
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, overrides)
        return caught.value.problems

    return refuse
