"""The same from Python: train on what is in memory, load what was trained."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, concatenate_datasets

import stfit
from stfit.data.cache.datasets import cache_dataset
from stfit.data.reading.load_table import load_table
from stfit.data.source import Source
from stfit.errors import DataError, ModelError, RecipeError
from stfit.events import Encoded, StepInfo
from stfit.options import EncodeOptions, MiningOptions


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


def told(*words):
    """What a command prints with `--json`."""
    done = subprocess.run([sys.executable, "-m", "stfit", *map(str, words), "--json"], capture_output=True, text=True)
    return json.loads(done.stdout)


def without_times(result):
    return {key: value for key, value in result.items() if key not in ("seconds", "rows_per_second", "peak_rss_mib")}


def test_events_end_with_what_train_gives(tmp_path, write, similarity):
    recipe = write(eval=[similarity])
    events = list(stfit.iter_train(recipe, runs=tmp_path / "runs"))
    names = [type(event).__name__ for event in events]
    assert names[:3] == ["Started", "Evaluated", "StepInfo"]
    assert names[-3:] == ["StepInfo", "Evaluated", "Finished"]
    assert [event.step for event in events if isinstance(event, StepInfo)] == [1, 2, 3, 4, 5, 6]
    assert stfit.train(recipe, runs=tmp_path / "runs") == events[-1].result


def test_a_training_whose_events_are_read_no_more_is_resumed(tmp_path, write):
    whole = stfit.train(write(), runs=tmp_path / "whole")
    events = stfit.iter_train(write(), runs=tmp_path / "runs")
    assert next(event for event in events if isinstance(event, StepInfo) and event.step == 4)
    events.close()
    steps = [event.step for event in stfit.iter_train(write(), runs=tmp_path / "runs") if isinstance(event, StepInfo)]
    assert steps == [3, 4, 5, 6]  # after the last checkpoint, as if it had been killed
    one, other = (Path(folder) / "model.safetensors" for folder in (whole["model"], tmp_path / "runs/tiny/model"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_functions_give_what_their_commands_print(tmp_path, write, similarity):
    recipe = write(eval=[similarity], gate=[{"metric": "scores/spearman_cosine", "min": 2}])
    run, texts = stfit.train(recipe, runs=tmp_path / "runs")["run"], tmp_path / "rows.jsonl"
    evaluated = stfit.evaluate(run)
    assert evaluated == told("eval", run)
    assert evaluated["error"]["class"] == "GateError"
    assert stfit.evaluate(run, recipe, compare=run)["compare"] == told("eval", run, "--compare", run)["compare"]
    assert stfit.check(recipe, ["train.epoch=1"]) == told("check", recipe, "train.epoch=1")
    assert stfit.check(recipe, strict=True) == told("check", recipe, "--strict")
    any_margin = MiningOptions(ranks=(1, 3), relative_margin=0.0, margin=-2, duplicate=2, per_row=2)
    mined = stfit.mine(run, recipe, tmp_path / "mined.jsonl", options=any_margin)
    options = ["--ranks", "1:3", "--relative-margin", "0", "--margin", "-2", "--duplicate", "2", "--per-row", "2"]
    assert mined == told("mine", run, recipe, "-o", tmp_path / "mined.jsonl", *options)
    *progress, finished = stfit.iter_encode(
        run, texts, tmp_path / "a.npy", column="anchor", options=EncodeOptions(normalize=True)
    )
    assert [type(event) for event in progress] == [Encoded]
    printed = told("encode", run, texts, "-o", tmp_path / "b.npy", "--column", "anchor", "--normalize")
    assert without_times(finished.result) == without_times(printed) | {"output": str(tmp_path / "a.npy")}
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: stfit.evaluate("nowhere"), RecipeError, "nowhere is no run folder, which has a recipe"),
        (lambda: stfit.evaluate(3, "recipe.yaml"), TypeError, "model must be .*, not an int: 3"),
        (lambda: stfit.check(None), TypeError, "recipe must be .*, not None"),
        (lambda: stfit.check("r.yaml", "train.epochs=1"), TypeError, "overrides must be"),
        (lambda: stfit.encode("m", ["a text"], "o.npy"), TypeError, r"in memory: load\(model\).encode\(texts\)"),
        (lambda: stfit.encode("m", "t.txt", "o.npy", options={"fast": True}), TypeError, "must be EncodeOptions"),
        (lambda: EncodeOptions(precision="int4"), RecipeError, "precision int4: must be one of float32, float16"),
        (lambda: EncodeOptions(truncate_dim=0), RecipeError, "truncate_dim 0: must be at least 1"),
        (lambda: MiningOptions(ranks=(0, 5)), RecipeError, "ranks 0:5: the first must be at least 1"),
        (lambda: MiningOptions(ranks=(3, 5), per_row=4), RecipeError, "per_row 4: ranks 3:5 allow 1 to 3"),
        (lambda: stfit.mine("m", "r.yaml", "out.csv"), RecipeError, "r.yaml"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
