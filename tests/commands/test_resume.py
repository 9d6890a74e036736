"""A run that was stopped anywhere ends with the same bytes as one that was not."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from draws import every
from processes import stop_at

from stfit.errors import LockError, ModelError, RecipeError
from stfit.events import Finished, Started, StepInfo

CLASSES = {"data": {"format": "labeled_pair"}, "loss": "softmax"}
TEXTS = {"data": {"format": "labeled_text"}, "loss": "batch_all_triplet"}
SEVERAL = {
    "data": None,
    "loss": None,
    "objectives": [
        {"data": {"dataset": "./rows.jsonl", "format": "positive_pair"}, "loss": "multiple_negatives_ranking"},
        {"data": {"dataset": "./rows.jsonl", "format": "labeled_pair"}, "loss": "softmax"},
        {"data": {"dataset": "./rows.jsonl", "format": "labeled_text"}, "loss": "batch_all_triplet"},
    ],
}
SUM = {
    "data": {"format": "labeled_pair"},
    "loss": [
        {"type": "softmax"},
        {
            "type": "global_orthogonal_regularization",
            "weight": 0.1,
            "matryoshka_dims": [16, 8, 4],
            "n_dims_per_step": 1,
        },
    ],
}
BASES = {
    "scratch": {},
    "static": {"base": {"type": "static", "embedding_dim": 8}},
    "lstm over words": {
        "base": {"type": "word_embeddings", "embedding_dim": 8},
        "token_layers": [{"type": "lstm", "hidden_dim": 4, "num_layers": 2, "dropout": 0.2}],
    },
    "bag of words": {
        "base": {"type": "bag_of_words", "vocab_size": 50},
        "max_seq_length": None,
        "layers": [{"type": "dense", "out_features": 8}],
    },
}
CASES = {
    "no_duplicates": {},
    "shuffle": {"train": {"sampler": "shuffle"}},
    "group_by_label": TEXTS,
    "softmax head": CLASSES,
    "accumulated": {"train": {"accumulate_steps": 2}},
    "mini-batches": {"train": {"mini_batch_size": 2}},
    "mini-batches by tokens": {"train": {"mini_batch_tokens": 20}},
    "everything": CLASSES | {"train": {"accumulate_steps": 2, "mini_batch_size": 1, "schedule": "cosine"}},
    "several objectives": SEVERAL,
    "several objectives in a step": SEVERAL | {"train": {"accumulate_steps": 2, "mini_batch_size": 2}},
    "several losses": SUM | {"train": {"log_every_steps": 3, "mini_batch_size": 2}},
    "no dropout": {"model": {"dropout": 0.0}},
    "losses logged over three steps": {"train": {"log_every_steps": 3}},
    "rates by layer": {"train": {"layer_decay": 0.5}},
    "two dropouts of a text": {"data": {"format": "text", "columns": {"text": "anchor"}}},
    **{name: {"model": model} for name, model in BASES.items() if model},
}


def logged(run):
    """metrics.jsonl without what a clock or the system says."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = ("seconds", "spent", "peak_rss_mib")
    return [{name: value for name, value in entry.items() if name not in measured} for entry in entries]


def assert_same_run(one, other):
    assert weights(one) == weights(other)
    assert logged(one) == logged(other)


def weights(run):
    return {path.parent.name: path.read_bytes() for path in (run / "model").rglob("*.safetensors")}


@pytest.mark.parametrize("name", every(3, CASES))
def test_resumed_run_equals_uninterrupted_run(tmp_path, write, run, similarity, name):
    case = CASES[name]
    recipe = write(eval=[similarity], **case)
    run(recipe, "whole")
    stop_at(recipe, tmp_path / "stopped", 5)
    assert [path.name for path in sorted((tmp_path / "stopped" / "tiny" / "checkpoints").iterdir())] == [
        "step-00000002",
        "step-00000004",
    ]
    events = run(recipe, "stopped")
    assert isinstance(events[0], Started)
    assert events[0].first_step == 4
    assert [event.step for event in events if isinstance(event, StepInfo)] == [5, 6]
    assert_same_run(tmp_path / "whole" / "tiny", tmp_path / "stopped" / "tiny")


def test_run_stopped_before_its_first_checkpoint_starts_over(tmp_path, write, run):
    recipe = write()
    run(recipe, "whole")
    stop_at(recipe, tmp_path / "stopped", 1)
    events = run(recipe, "stopped")
    assert [event.step for event in events if isinstance(event, StepInfo)] == [1, 2, 3, 4, 5, 6]
    assert_same_run(tmp_path / "whole" / "tiny", tmp_path / "stopped" / "tiny")


def test_layers_of_the_base_survive_a_stop_before_the_first_checkpoint(tmp_path, write, run):
    run(write(model={"layers": [{"type": "dense", "out_features": 8}]}), "base")
    recipe = write(model={"base": str(tmp_path / "base" / "tiny" / "model")})
    run(recipe, "whole")
    stop_at(recipe, tmp_path / "stopped", 1)
    run(recipe, "stopped")
    assert_same_run(tmp_path / "whole" / "tiny", tmp_path / "stopped" / "tiny")


def test_two_equal_runs_give_equal_bytes_and_another_seed_others(tmp_path, write, run):
    run(write(), "one")
    run(write(), "other")
    assert_same_run(tmp_path / "one" / "tiny", tmp_path / "other" / "tiny")
    run(write(seed=7), "third")
    assert weights(tmp_path / "third" / "tiny") != weights(tmp_path / "one" / "tiny")


def test_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, write, run, caplog):
    recipe = write()
    run(recipe, "whole")
    stop_at(recipe, tmp_path / "stopped", 5)
    damaged = tmp_path / "stopped" / "tiny" / "checkpoints" / "step-00000004" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4])
    events = run(recipe, "stopped")
    assert [event.step for event in events if isinstance(event, StepInfo)] == [3, 4, 5, 6]
    assert "step-00000004: skipped, optimizer.safetensors is damaged" in caplog.text
    assert_same_run(tmp_path / "whole" / "tiny", tmp_path / "stopped" / "tiny")


DAMAGED_LINES = [
    b"5",
    b"[]",
    b"{}",
    b'{"event": "step"}',
    b'{"step": "1", "event": "step"}',
    b'{"step": 1, "event": []}',
]
DAMAGED_LINES += [b'{"step": 1, "event": "step"}', b'{"step": 1, "event": "eval", "a/b": "high"}', b"[" * 100_000]


def test_lines_after_the_checkpoint_are_logged_once(tmp_path, write, run):
    recipe = write()
    stop_at(recipe, tmp_path / "runs", 5)
    path = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    with path.open("a") as stream:
        stream.write('{"step": 6, "ev')  # what a kill leaves
    with path.open("ab") as stream:
        stream.write(b"\n\xff\n" + b"\n".join(DAMAGED_LINES))
    run(recipe)
    assert [entry["step"] for entry in logged(path.parent) if entry["event"] == "step"] == [1, 2, 3, 4, 5, 6]


def test_checkpoints_are_rotated(tmp_path, write, run):
    run(write(train={"save_every_steps": 1, "keep_checkpoints": 3}))
    kept = sorted(path.name for path in (tmp_path / "runs" / "tiny" / "checkpoints").iterdir())
    assert kept == ["step-00000003", "step-00000004", "step-00000005"]


CHILD = """
import os
from stfit.cli.main import main
from stfit.commands import train as command
from stfit.events import StepInfo

train = command.train

def interrupted(events):
    for event in events:
        if isinstance(event, StepInfo) and event.step == 3:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        yield event

command.train = lambda loaded, runs, **options: interrupted(train(loaded, runs, **options))
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "first"),
    [(signal.SIGTERM, 143, 3), (signal.SIGINT, 130, 3), (signal.SIGKILL, -9, 2)],
    ids=["SIGTERM", "SIGINT", "SIGKILL"],
)
def test_signal_in_the_middle_of_the_run_loses_nothing(tmp_path, write, run, number, code, first):
    """SIGTERM and SIGINT finish the step in hand and save it; after SIGKILL the last checkpoint counts."""
    recipe = write()
    run(recipe, "whole")
    child = subprocess.run(
        [sys.executable, "-c", CHILD, "train", str(recipe), "--runs", str(tmp_path / "struck")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "SIGNAL": str(number.value)},
        capture_output=True,
        text=True,
    )
    assert child.returncode == code, child.stderr
    assert "Traceback" not in child.stderr
    if code > 0:
        assert "step 3 is saved; run the same command to resume" in child.stderr
    events = run(recipe, "struck")
    assert isinstance(events[0], Started)
    assert events[0].first_step == first
    assert_same_run(tmp_path / "whole" / "tiny", tmp_path / "struck" / "tiny")


def test_same_recipe_again_prints_the_result_and_trains_nothing(write, run):
    recipe = write()
    first = run(recipe)[-1]
    (again,) = run(recipe)
    assert isinstance(first, Finished)
    assert isinstance(again, Finished)
    assert (first.again, again.again) == (False, True)
    assert again.result == first.result


def test_resume_goes_on_but_never_starts(tmp_path, write, run):
    recipe = write()
    with pytest.raises(RecipeError, match="there is no run"):
        run(recipe, resume=True)
    stop_at(recipe, tmp_path / "runs", 3)
    events = run(recipe, resume=True)
    assert events[0].first_step == 2
    assert isinstance(events[-1], Finished)
    with pytest.raises(RecipeError, match=r"train\.learning_rate: 0\.01 -> 0\.5"):
        run(write(train={"learning_rate": 0.5}), resume=True)


@pytest.mark.parametrize("model", BASES.values(), ids=BASES)
def test_vocabulary_that_changed_with_the_texts_is_refused(tmp_path, write, run, caplog, model):
    recipe, rows = write(model=model), tmp_path / "rows.jsonl"
    stop_at(recipe, tmp_path / "runs", 3)
    before = rows.read_text()
    rows.write_text(before.replace("hill", "meadow").replace("the", "one"))
    with pytest.raises(LockError, match=r"fingerprint.*->(.|\n)*tokens"):
        run(recipe, resume=True)
    with pytest.raises(ModelError, match=r"step-00000002: its weights belong to another vocabulary(.|\n)*--fresh"):
        run(recipe)
    assert "changed since the checkpoint: data.0.fingerprint" in caplog.text
    rows.write_text(before)
    assert run(recipe)[0].first_step == 2


@pytest.mark.parametrize("moved", ["rows", "threads"])
def test_what_moved_since_the_checkpoint_is_said_and_refused_by_resume(tmp_path, write, run, caplog, moved):
    recipe = write(**CLASSES)
    stop_at(recipe, tmp_path / "runs", 3)
    if moved == "rows":
        rows = tmp_path / "rows.jsonl"
        rows.write_text(rows.read_text().replace('"label": 1', '"label": 2', 1))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1 if moved == "threads" else threads)
        with pytest.raises(LockError, match="fingerprint" if moved == "rows" else "threads: 1 -> 2") as caught:
            run(recipe, resume=True)
        assert caught.value.exit_code == 8
        assert run(recipe)[0].first_step == (0 if moved == "rows" else 2)
    finally:
        torch.set_num_threads(threads)
    assert "changed since the checkpoint: " in caplog.text
    assert (tmp_path / "runs" / "tiny.1" / "stfit.lock").is_file() == (moved == "rows")


def test_a_run_that_began_on_other_rows_is_put_aside_and_its_lock_stands_for_its_weights(tmp_path, write, run):
    recipe, rows = write(model={"base": {"type": "static", "vectors": "./words.txt"}}), tmp_path / "rows.jsonl"
    words = sorted({word for line in rows.read_text().splitlines() for word in line.replace('"', " ").split()})
    (tmp_path / "words.txt").write_text("".join(f"{word} {i % 7} {i % 5} 1 2\n" for i, word in enumerate(words)))
    stop_at(recipe, tmp_path / "runs", 3)
    rows.write_text("\n".join(reversed(rows.read_text().splitlines())) + "\n")
    assert run(recipe)[0].first_step == 0
    run(recipe, "locked", locked=tmp_path / "runs" / "tiny" / "stfit.lock")
    assert_same_run(tmp_path / "runs" / "tiny", tmp_path / "locked" / "tiny")
    assert (tmp_path / "runs" / "tiny.1" / "checkpoints" / "step-00000002").is_dir()
