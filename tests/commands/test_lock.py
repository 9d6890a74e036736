"""A lock tells whether a training would be the same again, on this machine or another."""

import json
import shutil

import pytest
import torch
from processes import stop_at

from stfit.errors import DataError, LockError, RecipeError
from stfit.events import Finished
from stfit.recipe.inputs import describe_inputs
from stfit.recipe.load import load_recipe
from stfit.recipe.lock import training_changes
from stfit.recipe.recipe import Recipe


@pytest.fixture
def trained(write, run, tmp_path, similarity, tiny_base):
    """A finished run on a base of this machine: the recipe, and the lock that its model carries."""
    recipe = write(model={"base": str(tiny_base("bert")), "max_seq_length": 16}, eval=[similarity])
    run(recipe)
    return recipe, tmp_path / "runs" / "tiny" / "model" / "stfit.lock"


def test_a_lock_says_what_the_model_was_made_of_and_no_folder_of_this_machine(trained, tmp_path):
    lock = json.loads(trained[1].read_text())
    assert (lock["base"]["base"], len(lock["base"]["fingerprint"])) == ("./bert", 64)
    (data,), rows = lock["data"], lock["eval"]["scores"]
    assert (data["dataset"], data["rows"], rows["dataset"]) == ("./rows.jsonl", 12, "./rows.jsonl")
    assert {len(part[key]) for part in (data, rows) for key in ("bytes", "fingerprint")} == {64}
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
    for content in (None, "{", "[]", '{"recipe": 5}', '{"recipe": {}, "eval": 5}'):
        if content:
            (tmp_path / "no.lock").write_text(content)
        with pytest.raises(RecipeError, match="lock"):
            run(trained[0], "others", locked=tmp_path / "no.lock")


def test_an_input_is_the_same_by_its_commit_its_files_or_its_rows():
    here = {"recipe": {}, "base": {"base": "scratch"}, "data": [{"dataset": "a/b", "commit": "1", "fingerprint": "x"}]}
    moved = {"dataset": "a/b", "commit": "2", "fingerprint": "x"}
    assert not training_changes(here, here | {"data": [{"dataset": "a/b", "commit": "1"}]})
    assert not training_changes(here, here | {"data": [moved]})
    assert training_changes(here, here | {"data": [{"dataset": "a/b", "commit": "2"}]})
    assert training_changes(here, here | {"data": [moved | {"fingerprint": "y"}]})
    assert training_changes(here, here | {"recipe": {"seed": 1}})
    assert training_changes({}, here)


def test_a_digest_that_an_older_lock_lacks_is_no_change_and_evaluators_may_come_and_go():
    new = {"recipe": {}, "base": {"base": "scratch"}, "data": [{"dataset": "a", "bytes": "1", "fingerprint": "x"}]}
    new |= {"eval": {"a": {"dataset": "a", "bytes": "1"}, "b": {"dataset": "b"}}, "files": {"model.base.vectors": "1"}}
    old = {"recipe": {}, "base": {"base": "scratch"}, "data": [{"dataset": "a", "fingerprint": "x"}]}
    assert not training_changes(old | {"eval": {"a": {"dataset": "a"}, "c": {"dataset": "c"}}}, new)
    for moved in ({"eval": {"a": {"dataset": "a", "bytes": "2"}}}, {"files": {"model.base.vectors": "2"}}):
        assert len(training_changes(new, new | moved)) == 1


def change(file):
    file.write_text(file.read_text().replace("saw today", "see today").replace("0.5", "0.7"))


@pytest.fixture
def static(write, tmp_path, similarity):
    """A recipe whose base, evaluation and training data are three files."""
    rows = tmp_path / "rows.jsonl"
    write()
    words = sorted({word.strip('",:{}').lower() for word in rows.read_text().split()} - {""})
    (tmp_path / "words.vec").write_text("".join(f"{word} {i / 9} 0.5 {i % 3} 0.1\n" for i, word in enumerate(words)))
    for name in ("test.jsonl", "train.jsonl"):
        (tmp_path / name).write_text(rows.read_text())
    return write(
        model={"base": {"type": "static", "vectors": "./words.vec"}},
        data={"dataset": "./train.jsonl"},
        eval=[similarity | {"dataset": "./test.jsonl"}],
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("train.jsonl", "data.0.fingerprint"),
        ("test.jsonl", "eval.scores.fingerprint"),
        ("words.vec", "files.model.base.vectors"),
    ],
)
def test_a_finished_run_whose_inputs_changed_is_trained_anew_and_refused_by_resume_and_locked(
    static, run, tmp_path, caplog, name, key
):
    run(static)
    folder = tmp_path / "runs" / "tiny"
    lock = folder / "model" / "stfit.lock"
    assert run(static, resume=True)[-1].again
    assert run(static, locked=lock)[-1].again
    before = lock.read_text()
    change(tmp_path / name)
    for strict in ({"resume": True}, {"locked": lock}):
        with pytest.raises(LockError, match=f"(?s){key}: .* -> "):
            run(static, **strict)
    assert (lock.read_text(), (tmp_path / "runs" / "tiny.1").exists()) == (before, False)
    assert not run(static)[-1].again
    assert (tmp_path / "runs" / "tiny.1" / "model" / "stfit.lock").read_text() == before
    assert f"{key}: " in caplog.text
    assert run(static)[-1].again


def test_equal_rows_in_another_file_are_no_change(static, run, tmp_path):
    run(static)
    rows = tmp_path / "train.jsonl"
    rows.write_text(rows.read_text().replace('", "', '",  "'))
    assert run(static, locked=tmp_path / "runs" / "tiny" / "model" / "stfit.lock")[-1].again


def test_a_finished_run_whose_data_is_gone_is_left_alone(static, run, tmp_path):
    run(static)
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl does not exist"):
        run(static)
    assert (tmp_path / "runs" / "tiny" / "result.json").is_file()


def test_every_file_of_a_base_counts(tiny_base, tmp_path):
    """Those that an older version looked at, and pickles and vocabularies too."""
    folder = shutil.copytree(tiny_base("bert"), tmp_path / "base")
    digests = []
    for name in ("model.safetensors", "vocab.txt", "pytorch_model.bin", "tokenizer.json"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        digests.append(json.dumps(describe_inputs(recipe_with(folder))))
    assert len(set(digests)) == 4


def recipe_with(base):
    data = {"dataset": str(base / "config.json"), "format": "text", "streaming": True}
    fields = {"name": "a", "model": {"base": str(base)}, "data": data, "loss": {"type": "multiple_negatives_ranking"}}
    return Recipe.model_validate(fields)


def test_a_locked_run_computes_as_the_first_one_did(write, run, tmp_path):
    recipe, lock = write(), tmp_path / "first" / "tiny" / "stfit.lock"
    run(recipe, "first")
    facts = json.loads(lock.read_text())
    assert facts["computation"] == {"attention": "fused", "precision": "float32"}
    lock.write_text(json.dumps(facts | {"computation": {"attention": "padded", "precision": "bfloat16"}}))
    run(recipe, "others", locked=lock)
    resolved = load_recipe(tmp_path / "others" / "tiny" / "resolved.yaml").recipe
    assert (resolved.model.attention, resolved.train.precision) == ("padded", "bfloat16")
    again = json.loads((tmp_path / "others" / "tiny" / "stfit.lock").read_text())
    assert again["computation"] == {"attention": "padded", "precision": "bfloat16"}
    lock.write_text(json.dumps({key: facts[key] for key in facts if key != "computation"}))  # of an earlier version
    run(recipe, "earlier", locked=lock)
    lock.write_text(json.dumps(facts | {"computation": {"attention": "sparse", "precision": "float32"}}))
    with pytest.raises(RecipeError, match="not a lock"):
        run(recipe, "junk", locked=lock)


@pytest.mark.parametrize("how", ["locked", "resume"])
def test_a_machine_that_can_not_compute_as_the_first_one_did_is_refused(write, run, tmp_path, monkeypatch, how):
    recipe = write()
    stop_at(recipe, tmp_path / "runs", 3)

    def missing(*_) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", missing)
    options = {"locked": {"locked": tmp_path / "runs" / "tiny" / "stfit.lock"}, "resume": {"resume": True}}[how]
    with pytest.raises(LockError, match=r"began with `attention: fused`, which this machine can't"):
        run(recipe, "runs" if how == "resume" else "others", **options)
    assert run(recipe, "free")
