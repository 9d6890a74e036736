"""The same from Python: train on what is in memory, load what was trained."""

import json
import subprocess
import sys

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, concatenate_datasets

import stfit
from stfit.data.cache.datasets import cache_dataset
from stfit.data.reading.load_table import load_table
from stfit.data.source import Source
from stfit.errors import DataError, ModelError, RecipeError


@pytest.fixture(autouse=True)
def kept_here(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))


def rows_in(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_importing_stfit_loads_nothing_heavy():
    heavy = ("torch", "transformers", "datasets", "pydantic", "numpy")
    code = f"import stfit, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_training_from_python_is_the_training_of_the_command_line(tmp_path, write, run, sentences):
    finished = run(write(), "terminal")[-1]
    result = stfit.train(str(write()), runs=tmp_path / "python")
    assert result["steps"] == finished.result["steps"] == 6
    embeddings = stfit.load(result["model"]).encode(sentences)
    assert embeddings.shape == (len(sentences), 16)
    np.testing.assert_array_equal(embeddings, stfit.load(tmp_path / "terminal" / "tiny").encode(sentences))


def test_a_dataset_in_memory_takes_the_place_of_dataset_and_split(tmp_path, write):
    rows = rows_in(write().parent)
    recipe = write(data={"dataset": "nobody/nothing", "config": "none", "revision": "main", "split": "gone[:50%]"})
    from_file = stfit.train(write(), runs=tmp_path / "file")
    recipe = write(data={"dataset": "nobody/nothing", "config": "none", "revision": "main", "split": "gone[:50%]"})
    from_memory = stfit.train(recipe, Dataset.from_list(rows), runs=tmp_path / "memory")
    one, other = (tmp_path / name / "tiny" / "model" / "model.safetensors" for name in ("file", "memory"))
    assert from_file["metrics"] == from_memory["metrics"]
    assert one.read_bytes() == other.read_bytes()


def test_the_same_rows_again_go_on_with_the_run_and_others_start_anew(tmp_path, write):
    rows = rows_in(write().parent)
    path = write(train={"max_steps": 2})
    stfit.train(path, Dataset.from_list(rows), runs=tmp_path / "runs")
    stfit.train(path, Dataset.from_list(rows[:6]).select(range(6)), runs=tmp_path / "runs")
    stfit.train(
        path, concatenate_datasets([Dataset.from_list(rows[:3]), Dataset.from_list(rows[3:6])]), runs=tmp_path / "runs"
    )
    assert sorted(path.name for path in (tmp_path / "runs").glob("tiny*")) == ["tiny", "tiny.1"]


def test_splits_and_class_names_are_kept(write):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    splits = DatasetDict(
        train=Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features),
        test=Dataset.from_dict({"text": ["c"], "label": [1]}, features),
    )
    table = load_table(Source(dataset=str(cache_dataset(splits)), split="test"))
    assert (table.columns["text"], table.label_names) == (["c"], {"label": ["no", "yes"]})
    assert cache_dataset(splits) == cache_dataset(splits)
    assert cache_dataset(splits).name.startswith("from-python-")  # reports and `runs` show it


def test_mistakes_are_the_errors_of_stfit(tmp_path, write):
    with pytest.raises(RecipeError, match="unknown key"):
        stfit.train(write(), overrides=["train.epoch=3"])
    with pytest.raises(DataError, match="needs anchor, positive"):
        stfit.train(write(), Dataset.from_list([{"a": "x"}]), runs=tmp_path / "runs")
    with pytest.raises(ModelError, match="no such run or model folder"):
        stfit.load(tmp_path / "nothing")
