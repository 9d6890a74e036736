"""A checkpoint is whole or does not exist."""

import json
import random
import resource
import shutil

import numpy as np
import pytest
import torch
from processes import fork, wait

from stfit.errors import DivergedError, ModelError, ResourceError
from stfit.io.atomic import temporary_path
from stfit.io.hashing import hash_file
from stfit.losses.pairs import Softmax
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.terms import LossTerms
from stfit.runtime.run_folder import list_checkpoints
from stfit.training.checkpoint import (
    checkpoint_path,
    delete_old_checkpoints,
    newest_checkpoint,
    require_disk_space,
    restore_checkpoint,
    save_checkpoint,
)
from stfit.training.gradients import build_splitter
from stfit.training.loop import build_train_objects, train_steps
from stfit.training.rng import capture_rng, seed_everything

FILES = ["weights.safetensors", "optimizer.safetensors", "randomness.safetensors", "state.json", "manifest.json"]


@pytest.fixture
def learner(build):
    return build_train_objects(build(), [LossTerms([MultipleNegativesRanking()], 32)], 0.01, [])


@pytest.fixture
def train(make_batch):
    def train_some(learner, count, roles=("anchor", "positive"), label="none"):
        batch = make_batch(learner.encoder, roles, label)
        return list(
            train_steps(
                learner,
                [[(0, batch)]] * count,
                lambda step: 0.01,
                first_step=0,
                split=build_splitter(),
                max_grad_norm=1.0,
            )
        )

    return train_some


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, flip, delete])
@pytest.mark.parametrize("file", FILES)
def test_damaged_newest_checkpoint_is_skipped_for_the_one_before(tmp_path, learner, caplog, file, damage):
    for step in (2, 4):
        save_checkpoint(checkpoint_path(tmp_path, step), learner, {"step": step})
    assert sorted(path.name for path in checkpoint_path(tmp_path, 4).iterdir()) == sorted(FILES)
    damage(checkpoint_path(tmp_path, 4) / file)
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.facts == {"step": 2}
    (line,) = caplog.messages
    assert "step-00000004: skipped" in line


def test_newest_of_whole_checkpoints_is_taken_without_a_word(tmp_path, learner, caplog):
    for step in (2, 10, 9):
        save_checkpoint(checkpoint_path(tmp_path, step), learner, {"step": step})
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.facts, caplog.messages) == ({"step": 10}, [])


def test_no_checkpoint_is_found_in_an_empty_folder(tmp_path):
    assert newest_checkpoint(tmp_path) is None


def test_learner_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path, build, train):
    def softmax_learner():
        torch.manual_seed(3)
        encoder = build()
        return build_train_objects(encoder, [LossTerms([Softmax()], encoder.embedding_dim, 3)], 0.01, [])

    seed_everything(1)
    learner = softmax_learner()
    train(learner, 2, ("sentence1", "sentence2"), "class")
    save_checkpoint(tmp_path / "step-00000002", learner, {})
    expected = [(info.loss, info.grad_norm) for info in train(learner, 2, ("sentence1", "sentence2"), "class")]
    drawn = capture_rng()

    seed_everything(99)
    resumed = softmax_learner()
    train(resumed, 1, ("sentence1", "sentence2"), "class")
    checkpoint = newest_checkpoint(tmp_path)
    restore_checkpoint(checkpoint, resumed)
    assert [(info.loss, info.grad_norm) for info in train(resumed, 2, ("sentence1", "sentence2"), "class")] == expected
    assert all(torch.equal(state, drawn[name]) for name, state in capture_rng().items())
    for module, again in zip(learner.modules, resumed.modules, strict=True):
        for name, weight in module.state_dict().items():
            assert torch.equal(weight, again.state_dict()[name]), name


def test_every_generator_is_put_back(tmp_path, learner):
    def draw():  # np.random: libraries that still draw from the global generator
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()  # noqa: NPY002

    draw()  # leaves half a pair of normal numbers in Python's and numpy's generators
    save_checkpoint(checkpoint_path(tmp_path, 1), learner, {})
    expected = draw()
    seed_everything(99)
    restore_checkpoint(newest_checkpoint(tmp_path), learner)
    assert draw() == expected


@pytest.mark.parametrize("names", [[], ["weights.safetensors"], ["../step-00000002/state.json", *FILES[:3]]])
def test_checkpoint_that_names_other_files_than_it_holds_is_none(tmp_path, learner, caplog, names):
    save_checkpoint(checkpoint_path(tmp_path, 2), learner, {})
    folder = checkpoint_path(tmp_path, 4)
    shutil.copytree(checkpoint_path(tmp_path, 2), folder)
    (folder / "manifest.json").write_text(json.dumps({name: hash_file(folder / name) for name in names}))
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.folder.name == "step-00000002"
    assert "step-00000004: skipped, holds" in caplog.messages[0]


def test_checkpoint_of_another_model_is_refused_by_name(tmp_path, build):
    learners = [
        build_train_objects(
            build(layers=[{"type": "dense", "out_features": size}]),
            [LossTerms([MultipleNegativesRanking()], size)],
            0.0,
            [],
        )
        for size in (8, 9)
    ]
    save_checkpoint(checkpoint_path(tmp_path, 1), learners[0], {})
    with pytest.raises(ModelError, match=r"step-00000001: its weights do not fit this model(.|\n)*layers\.0"):
        restore_checkpoint(newest_checkpoint(tmp_path), learners[1])


def test_weights_that_are_not_finite_become_no_checkpoint(tmp_path, learner):
    with torch.no_grad():
        learner.encoder.backbone.embeddings.word_embeddings.weight[3] = float("inf")  # of a token that no text has
    with pytest.raises(DivergedError, match=r"not finite: backbone\.embeddings\.word_embeddings\.weight\."):
        save_checkpoint(checkpoint_path(tmp_path, 1), learner, {})
    assert list(tmp_path.iterdir()) == []


def test_run_that_its_disk_can_not_hold_is_refused_before_it_starts(tmp_path, learner, monkeypatch):
    require_disk_space(tmp_path, learner, 2)
    tensors = sum(weight.nbytes for weight in learner.encoder.state_dict().values())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * tensors))
    with pytest.raises(ResourceError, match=r"2 checkpoints and the model need .* MiB are free"):
        require_disk_space(tmp_path, learner, 2)


@pytest.mark.parametrize("room", [100, 5_000, 70_000])
def test_full_disk_leaves_the_older_checkpoint_and_nothing_half_written(tmp_path, learner, caplog, room):
    save_checkpoint(checkpoint_path(tmp_path, 2), learner, {"step": 2})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(ResourceError, match="step-00000004: can't be written") as caught:
            save_checkpoint(checkpoint_path(tmp_path, 4), learner, {"step": 4, "note": "n" * 100_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.exit_code == 9
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.facts, caplog.messages) == ({"step": 2}, [])


def test_what_a_killed_writer_leaves_is_no_checkpoint_and_is_in_nobodys_way(tmp_path, learner):
    save_checkpoint(checkpoint_path(tmp_path, 2), learner, {"step": 2})
    killed = fork(lambda: shutil.copytree(tmp_path / "step-00000002", temporary_path(tmp_path / "step-00000004")))
    assert wait(killed) == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002"]
    save_checkpoint(checkpoint_path(tmp_path, 4), learner, {"step": 4})
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000004", "step-00000002"]
    assert len(list(tmp_path.iterdir())) == 2


def test_rotation_keeps_the_newest_and_deletes_nothing_when_the_newest_is_damaged(tmp_path, learner):
    for step in (1, 2, 3):
        save_checkpoint(checkpoint_path(tmp_path, step), learner, {"step": step})
    flip(checkpoint_path(tmp_path, 3) / "weights.safetensors")
    with pytest.raises(ResourceError, match=r"step-00000003: was just written, but weights\.safetensors is"):
        delete_old_checkpoints(tmp_path, 1)
    assert len(list_checkpoints(tmp_path)) == 3
    save_checkpoint(checkpoint_path(tmp_path, 3), learner, {"step": 3})
    delete_old_checkpoints(tmp_path, 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003", "step-00000002"]
