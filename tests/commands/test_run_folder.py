"""A run folder is never overwritten, shared or lost by accident."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from processes import die, fork, run_in_child, wait

from stfit.commands.init import init
from stfit.commands.train import train
from stfit.errors import DataError, RecipeError, ResourceError
from stfit.events import Started
from stfit.recipe.load import load_recipe
from stfit.recipe.lock import training_sections
from stfit.runtime.run_folder import lock_folder, open_folder

FILES = {"recipe.yaml", "resolved.yaml", "stfit.lock", "metrics.jsonl", "record.json", "result.json", "report.html"}
FOLDERS = {"checkpoints", "model"}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trained_anew(events):
    return isinstance(events[0], Started) and events[0].first_step == 0


@pytest.mark.parametrize("name", [b"lat\xe9in", b"a\0b"])
def test_a_folder_whose_name_is_no_text_is_refused_before_the_training(tmp_path, write, name):
    folder, recipe = tmp_path / os.fsdecode(name), write()
    with pytest.raises(RecipeError, match="a path must be UTF-8 text"):
        next(train(load_recipe(recipe), folder))
    if b"\0" in name:
        return
    folder.mkdir()
    shutil.copy(recipe, folder)
    shutil.copy(tmp_path / "rows.jsonl", folder)
    with pytest.raises(RecipeError, match="a path must be UTF-8 text"):
        load_recipe(folder / recipe.name)
    with pytest.raises(RecipeError, match="a path must be UTF-8 text"):
        init(str(folder / "rows.jsonl"), tmp_path / "new.yaml")


def test_finished_run_holds_what_the_design_names(tmp_path, write, run, similarity, pictures):
    recipe = write(eval=[similarity])
    run(recipe)
    folder = tmp_path / "runs" / "tiny"
    assert {path.name for path in folder.iterdir()} == FILES | FOLDERS
    assert (folder / "recipe.yaml").read_text() == recipe.read_text()
    lock = json.loads((folder / "stfit.lock").read_text())
    assert lock["data"][0]["rows"] == 12
    assert lock["threads"] == 1
    resolved = load_recipe(folder / "resolved.yaml").recipe
    assert (resolved.train.sampler, resolved.train.device, resolved.train.precision) != ("auto", "auto", "auto")
    assert resolved.model.pooling == ["mean"]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_new_run_that_can_not_begin_gives_the_place_back(tmp_path, write, run, similarity, caplog, fresh):
    """A service that reads runs/tiny/model goes on, though somebody misspelled the new recipe."""
    run(write())
    before = contents(tmp_path / "runs" / "tiny")
    wrong = write(train={"learning_rate": 0.02}, eval=[similarity | {"limit": 1}])
    with pytest.raises(DataError):
        run(wrong, fresh=fresh)
    assert contents(tmp_path / "runs" / "tiny") == before
    assert [path.name for path in (tmp_path / "runs").glob("tiny*")] == ["tiny"]
    assert "nothing was trained: the earlier run is" in caplog.text
    assert run(write())[-1].again


def test_changed_recipe_keeps_the_old_run_and_says_the_difference(tmp_path, write, run, caplog):
    run(write())
    before = contents(tmp_path / "runs" / "tiny")
    assert trained_anew(run(write(train={"learning_rate": 0.02})))
    assert contents(tmp_path / "runs" / "tiny.1") == before
    assert "train.learning_rate: 0.01 -> 0.02" in caplog.text
    assert "tiny.1" in caplog.text
    run(write(seed=1))
    assert contents(tmp_path / "runs" / "tiny.1") == before
    assert (tmp_path / "runs" / "tiny.2").is_dir()


def test_fresh_trains_anew_and_keeps_the_old_run(tmp_path, write, run):
    recipe = write()
    run(recipe)
    before = contents(tmp_path / "runs" / "tiny")
    assert trained_anew(run(recipe, fresh=True))
    assert contents(tmp_path / "runs" / "tiny.1") == before


CHANGES = [
    "seed=1", "model.pooling=cls", "model.max_seq_length=8", "model.dropout=0.3", "model.base.hidden_size=32",
    "data.dataset=./other.jsonl", "data.limit=8", "data.where.label=1", "loss.scale=10", "train.learning_rate=0.02",
    "train.batch_size=2", "train.mini_batch_size=2", "train.accumulate_steps=2", "train.max_steps=7",
    "train.sampler=shuffle", "train.schedule=cosine", "train.weight_decay=0.1", "train.warmup_ratio=0.2",
    "train.max_grad_norm=0.5", "train.precision=bfloat16", "train.freeze=[*LayerNorm*]", "train.best=scores/loss",
]  # fmt: skip


def test_every_change_of_what_is_trained_is_named_and_refused_by_resume(tmp_path, write, promise):
    recipe = write()
    events = train(load_recipe(recipe), tmp_path / "runs")
    next(events)
    events.close()
    named = 0
    for change in CHANGES:
        key = change.partition("=")[0]
        with pytest.raises(RecipeError, match=re.escape(key.removesuffix(".label"))):
            open_folder(
                tmp_path / "runs" / "tiny", training_sections(load_recipe(recipe, [change]).recipe), False, True
            )
        named += 1
    promise("changes of the recipe named, and refused by --resume", f"{named}/{len(CHANGES)}")


def test_evaluators_may_change_without_a_new_training(tmp_path, write, run, similarity):
    run(write())
    (again,) = run(write(eval=[similarity]))
    assert again.again
    assert not (tmp_path / "runs" / "tiny.1").exists()


def test_evaluators_may_change_in_the_middle_of_a_run(tmp_path, write, run, similarity):
    events = train(load_recipe(write()), tmp_path / "runs")
    while getattr(next(events), "step", 0) < 3:
        pass
    events.close()
    finished = run(write(eval=[similarity]))
    assert finished[0].first_step == 2
    assert "scores/spearman_cosine" in finished[-1].result["metrics"]


@pytest.mark.parametrize(
    "damage", ["", "{", None, "{}", '{"recipe": {}, "eval": 5}', '{"recipe": 5}', '{"python": "3"}']
)
def test_folder_without_a_readable_lock_is_put_aside_and_nothing_in_it_is_lost(tmp_path, write, run, damage):
    run(write())
    folder = tmp_path / "runs" / "tiny"
    lock = folder / "stfit.lock"
    lock.unlink() if damage is None else lock.write_text(damage)
    before = contents(folder)
    assert trained_anew(run(write()))
    assert contents(tmp_path / "runs" / "tiny.1") == before


def test_run_killed_before_it_wrote_anything_leaves_no_second_folder(tmp_path, write, run):
    (tmp_path / "runs" / "tiny" / "checkpoints").mkdir(parents=True)
    assert trained_anew(run(write()))
    assert not (tmp_path / "runs" / "tiny.1").exists()


@pytest.mark.slow
def test_second_process_is_kept_out_of_a_run_folder_in_use(tmp_path, write, run):
    recipe = write()
    events = train(load_recipe(recipe), tmp_path / "runs")
    next(events)
    child = subprocess.run(
        [sys.executable, "-m", "stfit", "train", str(recipe), "--runs", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
    )
    assert child.returncode == 9
    assert f"is in use by process {os.getpid()}" in child.stderr
    events.close()
    run(recipe)


def test_same_process_is_kept_out_too_and_let_in_when_the_first_run_is_left(tmp_path, write, run):
    recipe = write()
    events = train(load_recipe(recipe), tmp_path / "runs")
    next(events)
    with pytest.raises(ResourceError, match="is in use by process"):
        run(recipe)
    events.close()
    assert run(recipe)[-1].result["steps"] == 6


def hold_and(action, path):
    with lock_folder(path):
        action()


@pytest.mark.slow
def test_lock_of_a_process_that_died_is_in_nobodys_way_and_that_of_a_living_one_is(tmp_path, promise):
    """Whatever the lock says: the number of a dead process may be that of another one by now."""
    path, beside = tmp_path / "runs" / "tiny", tmp_path / "runs" / ".tiny.lock"
    recovered = refused = 0
    for left in [None, "", "no number", str(os.getppid()), "1"] * 4:
        dead = fork(lambda: hold_and(die, path))
        assert wait(dead) == -signal.SIGKILL
        assert beside.read_text() == str(dead)
        if left is not None:
            beside.write_text(left)
        with lock_folder(path):
            recovered += beside.read_text() == str(os.getpid())
            refused += run_in_child(lambda: hold_and(lambda: None, path), tmp_path / "said") == ResourceError.exit_code
            assert f"{path} is in use by process {os.getpid()}" in (tmp_path / "said").read_text()
    promise("lock of a killed process recovered, of a living one respected", f"{recovered}/20, {refused}/20")
    assert (recovered, refused) == (20, 20)


def test_runs_that_is_no_folder_is_an_error_about_the_disk(tmp_path, write, run):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ResourceError, match="choose another folder with --runs"):
        run(write())


def test_what_a_killed_writer_left_is_undone(tmp_path, write, run):
    """A half-written checkpoint goes; a model that had lost its name, and whose successor has none yet, comes back."""
    run(write())
    folder = tmp_path / "runs" / "tiny"
    (folder / "result.json").unlink()
    model = contents(folder / "model")
    (folder / "model").rename(folder / "model.7@a.host.old")
    (folder / "model.7@a.host.old" / "stfit.lock.7@a.host.tmp").write_text("half")
    for name in ("model.7@a.host.tmp", "checkpoints/step-00000009.7@a.host.tmp"):
        (folder / name).mkdir()
        (folder / name / "half").write_text("half")
    events = train(load_recipe(write()), tmp_path / "runs")
    next(events)
    assert contents(folder / "model") == model
    assert not [path for path in folder.rglob("*") if path.suffix in (".tmp", ".old")]
    events.close()


SHAPES = [{"result": 5}, {"result": {}, "main": []}, {"result": {"metrics": 5}, "main": []}]


@pytest.mark.parametrize("damage", ["", "[", "[]", *map(json.dumps, SHAPES)])
def test_damaged_result_is_no_result(tmp_path, write, run, damage):
    expected = run(write())[-1].result["metrics"]
    (tmp_path / "runs" / "tiny" / "result.json").write_text(damage)
    finished = run(write())
    assert finished[0].first_step == 4
    assert finished[-1].result["metrics"] == expected
