"""What a later command trusts carries a digest: a changed byte is noticed, put aside and said, never used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from stfit.commands.train import train
from stfit.data.embeddings.saved_windows import SavedWindows
from stfit.data.embeddings.writers import EmbeddingRows
from stfit.encoder.folder.resolve import model_in
from stfit.errors import ModelError, RecipeError
from stfit.events import StepInfo
from stfit.recipe.load import load_recipe
from stfit.runtime.run_folder import NOT_LOADED, RunFolder


def stop_after(recipe: Path, runs: Path, step: int) -> RunFolder:
    events = train(load_recipe(recipe), runs)
    while not (isinstance(event := next(events), StepInfo) and event.step == step):
        pass
    events.close()
    return RunFolder(runs / "tiny")


def weights(folder: RunFolder) -> bytes:
    return (folder.model / "model.safetensors").read_bytes()


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: "", None])
def test_a_damaged_resolved_recipe_is_written_again_and_the_run_is_that_of_nobody_interrupted(
    write, run, tmp_path, caplog, damage
):
    recipe = write()
    run(recipe, "whole")
    folder = stop_after(recipe, tmp_path / "runs", 3)
    text = folder.resolved.read_text()
    folder.resolved.unlink() if damage is None else folder.resolved.write_text(damage(text))
    run(recipe)
    assert weights(folder) == weights(RunFolder(tmp_path / "whole" / "tiny"))
    assert "is written again from the newest checkpoint" in caplog.text
    assert folder.resolved.read_text() == text


def test_a_damaged_resolved_recipe_is_refused_and_one_without_a_digest_is_read(write, run, tmp_path):
    run(write())
    resolved = RunFolder(tmp_path / "runs" / "tiny").resolved
    text = resolved.read_text()
    resolved.write_text(text.replace("seed: 42", "seed: 43"))
    with pytest.raises(RecipeError, match=r"resolved\.yaml: differs from the digest in its first line"):
        load_recipe(resolved)
    resolved.write_text(text.partition("\n")[2])
    assert load_recipe(resolved).recipe.seed == 42


@pytest.mark.slow
@pytest.mark.parametrize("place", ["result", "model.safetensors", "tokenizer.json"])
def test_a_finished_run_with_a_changed_byte_is_finished_again(write, run, tmp_path, place, caplog):
    recipe = write()
    expected = run(recipe)[-1].result["metrics"]
    folder = RunFolder(tmp_path / "runs" / "tiny")
    before = weights(folder), (folder.model / "tokenizer.json").read_bytes()
    if place == "result":
        folder.result.write_text(folder.result.read_text().replace('"steps": 6', '"steps": 7'))
    else:
        flip(folder.model / place, -3)
    finished = run(recipe)[-1]
    assert (finished.again, finished.result["steps"], finished.result["metrics"]) == (False, 6, expected)
    assert (weights(folder), (folder.model / "tokenizer.json").read_bytes()) == before
    assert "damaged" in caplog.text


def test_a_model_that_its_run_did_not_write_is_refused_by_any_of_its_names(write, run, tmp_path, monkeypatch):
    run(write())
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "runs" / "tiny")
    for name in NOT_LOADED:
        flip(folder.model / name, -3)
    for path in folder.model.rglob("*"):
        names = [str(folder.path), str(folder.model), "runs/tiny", "runs/tiny/model"] if path.is_file() else []
        assert all(Path(model_in(name)).resolve() == folder.model for name in names)
        if names and path.name not in NOT_LOADED:
            flip(path, -3)
            for name in names:
                with pytest.raises(ModelError, match=f"{path.name} is damaged: run its `stfit train` again"):
                    model_in(name)
            flip(path, -3)


def test_the_best_model_so_far_is_verified_before_a_run_relies_on_it(write, run, tmp_path, similarity, caplog):
    settings = {"best": "scores/spearman_cosine", "eval_every_steps": 1, "save_every_steps": 1}
    folder = stop_after(write(eval=[similarity], train=settings), tmp_path / "runs", 4)
    flip(folder.model / "model.safetensors", -3)
    run(write(eval=[similarity], train=settings))
    assert "the best model so far is lost" in caplog.text


def test_a_result_of_an_earlier_version_has_no_digest_and_is_trusted(write, run, tmp_path):
    recipe = write()
    run(recipe)
    file = RunFolder(tmp_path / "runs" / "tiny").result
    content = json.loads(file.read_text())
    file.write_text(json.dumps({"result": content["result"], "main": content["main"]}))
    assert run(recipe)[-1].again


def test_a_changed_byte_anywhere_in_a_window_makes_it_no_window(tmp_path):
    saved = SavedWindows(tmp_path)
    saved.write(0, "inputs", EmbeddingRows([1, 2], {"text": ["a", "b"]}, np.ones((2, 3), np.float32)))
    whole = saved.path(0).read_bytes()
    assert saved.has(0, "inputs")
    for place in range(len(whole)):
        saved.path(0).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not saved.has(0, "inputs") or saved.read(0).values.tolist() == np.ones((2, 3)).tolist()


def test_damaged_checkpoints_are_put_aside_once_and_the_run_starts_from_what_is_whole(write, run, tmp_path, caplog):
    recipe = write()
    run(recipe, "whole")
    folder = stop_after(recipe, tmp_path / "runs", 5)
    for path in folder.checkpoints.glob("step-*/weights.safetensors"):
        path.write_bytes(b"")
    events = run(recipe)
    assert events[0].first_step == 0
    assert weights(folder) == weights(RunFolder(tmp_path / "whole" / "tiny"))
    assert caplog.text.count("skipped, weights.safetensors is damaged; kept as step-") == 2
    assert len(list(folder.checkpoints.glob("*.damaged"))) == 2


@pytest.mark.parametrize("names", [["resolved.yaml", "recipe.yaml", "stfit.lock"], ["metrics.jsonl", "record.json"]])
def test_files_deleted_while_a_run_trains_are_written_again(write, run, tmp_path, names, caplog):
    recipe = write()
    run(recipe, "whole")
    events = train(load_recipe(recipe), tmp_path / "runs")
    folder = RunFolder(tmp_path / "runs" / "tiny")
    for event in events:
        if isinstance(event, StepInfo) and event.step == 5:
            for name in names:
                (folder.path / name).unlink()
    assert {path.name for path in folder.path.iterdir()} >= {*names, "model", "result.json"}
    assert weights(folder) == weights(RunFolder(tmp_path / "whole" / "tiny"))
    assert run(recipe)[-1].again


def test_a_run_folder_deleted_while_the_run_trains_is_made_again(write, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "tiny")
    for event in train(load_recipe(write()), tmp_path / "runs"):
        if isinstance(event, StepInfo) and event.step == 3:
            shutil.rmtree(folder.path)
    assert {path.name for path in folder.path.iterdir()} >= {"resolved.yaml", "stfit.lock", "model", "result.json"}
