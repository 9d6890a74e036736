"""A lock tells whether a training would be the same again, on this machine or another."""

import json

import pytest
import torch

from stfit.commands.train import Finished
from stfit.errors import LockError, RecipeError
from stfit.recipe.lock import is_same_training


@pytest.fixture
def trained(write, run, tmp_path, similarity, tiny_base):
    """A finished run on a base of this machine: the recipe, and the lock that its model carries."""
    recipe = write(model={"base": str(tiny_base("bert")), "max_seq_length": 16}, eval=[similarity])
    run(recipe)
    return recipe, tmp_path / "runs" / "tiny" / "model" / "stfit.lock"


def test_a_lock_says_what_the_model_was_made_of_and_no_folder_of_this_machine(trained, tmp_path):
    lock = json.loads(trained[1].read_text())
    assert (lock["base"]["base"], len(lock["base"]["fingerprint"])) == ("./bert", 64)
    assert lock["data"] == [{"dataset": "./rows.jsonl", "rows": 12, "fingerprint": lock["data"][0]["fingerprint"]}]
    assert lock["eval"] == {"scores": {"dataset": "./rows.jsonl"}}
    assert lock["recipe"]["train"]["max_steps"] == 6
    assert {"torch", "stfit"} <= set(lock["packages"])
    assert lock["threads"] == 1
    assert str(tmp_path) not in trained[1].read_text()


def test_the_same_training_equals_its_lock(trained, run):
    recipe, lock = trained
    assert isinstance(run(recipe, "runs", locked=lock)[-1], Finished)
    first, again = lock.read_text(), run(recipe, "others", locked=lock)[-1]
    assert not again.again
    assert lock.read_text() == first


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        ({"train": {"learning_rate": 0.02}}, "recipe.train.learning_rate: 0.01 -> 0.02"),
        ({"data": {"limit": 10}}, "data.0.rows: 12 -> 10"),
        ({"eval": []}, "eval.scores: "),
    ],
)
def test_what_moved_in_the_recipe_is_said_and_nothing_is_trained(trained, write, run, tmp_path, moved, said):
    changed = json.loads(trained[0].read_text())
    changed |= {name: {**changed[name], **part} if isinstance(part, dict) else part for name, part in moved.items()}
    trained[0].write_text(json.dumps(changed))
    with pytest.raises(LockError) as error:
        run(trained[0], "others", locked=trained[1])
    assert said in str(error.value)
    assert not (tmp_path / "others" / "tiny" / "model").exists()


def test_what_moved_around_the_recipe_is_said(trained, run, tmp_path, tiny_base):
    recipe, file = trained
    lock = json.loads(file.read_text())
    lock["packages"]["torch"] = "1.0"
    lock["base"]["fingerprint"] = "0" * 64
    file.write_text(json.dumps(lock))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace("cat", "kitten"))
    torch.set_num_threads(2)
    try:
        with pytest.raises(LockError) as error:
            run(recipe, "others", locked=file)
    finally:
        torch.set_num_threads(1)
    for key in ("packages.torch: '1.0' -> ", "base.fingerprint: ", "data.0.fingerprint: ", "threads: 1 -> 2"):
        assert key in str(error.value)


def test_a_finished_run_is_held_against_the_lock_too(trained, run):
    recipe, file = trained
    lock = json.loads(file.read_text())
    file.write_text(json.dumps(lock | {"python": "3.0"}))
    with pytest.raises(LockError, match=r"python: '3\.0' -> "):
        run(recipe, locked=file)


def test_what_is_no_lock_is_refused(trained, run, tmp_path):
    for content in (None, "{", "[]"):
        if content:
            (tmp_path / "no.lock").write_text(content)
        with pytest.raises(RecipeError, match="lock"):
            run(trained[0], "others", locked=tmp_path / "no.lock")


def test_an_input_is_the_same_by_its_commit_or_by_its_rows():
    here = {"recipe": {}, "base": {"base": "scratch"}, "data": [{"dataset": "a/b", "commit": "1", "fingerprint": "x"}]}
    moved = {"dataset": "a/b", "commit": "2", "fingerprint": "x"}
    assert is_same_training(here, here | {"data": [{"dataset": "a/b", "commit": "1"}]})
    assert is_same_training(here, here | {"data": [moved]})
    assert not is_same_training(here, here | {"data": [{"dataset": "a/b", "commit": "2"}]})
    assert not is_same_training(here, here | {"data": [moved | {"fingerprint": "y"}]})
    assert not is_same_training(here, here | {"recipe": {"seed": 1}})
    assert not is_same_training({}, here)
