"""A training on a stream is one training, however it is interrupted and shared out, and refuses what it can't see."""

import json
import signal

import pytest
from draws import every
from processes import run_group, run_in_child, send, stop_at

from stfit.commands.check import check
from stfit.commands.train import train
from stfit.data.batching import shuffle_buffer as chunks
from stfit.data.reading import text_lines
from stfit.errors import DataError, LockError, RecipeError
from stfit.events import StepInfo
from stfit.recipe.load import load_recipe
from stfit.runtime import signals

CASES = {
    "no_duplicates": {},
    "shuffle, accumulated": {"train": {"sampler": "shuffle", "accumulate_steps": 2}},
    "group_by_label": {"data": {"format": "labeled_text"}, "loss": "batch_all_triplet"},
    "softmax head": {
        "data": {"format": "labeled_pair", "label_map": {"0": 0, "1": 1, "2": 2}},
        "loss": "softmax",
        "train": {"mini_batch_size": 1},
    },
}
WHOLE = {"data": {"dataset": "./rows.jsonl", "format": "labeled_pair", "columns": {"label": "score"}}, "loss": "cosent"}


@pytest.fixture
def streamed(tmp_path, write, tiny_base, monkeypatch):
    """Writes a recipe that reads 36 rows in chunks of 16, eight at a time."""
    monkeypatch.setattr(text_lines, "BLOCK_ROWS", 8)
    path = tmp_path / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    more = [
        row | {name: f"{turn} {text}" for name, text in row.items() if isinstance(text, str)}
        for turn in range(3)
        for row in rows
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in more))

    def write_recipe(**sections):
        given = {
            "model": {"base": str(tiny_base("bert")), "max_seq_length": 16},
            "data": {"streaming": True, "shuffle_buffer": 16},
            "train": {"max_steps": 14, "save_every_steps": 4},
        }
        return write(**{name: part | sections.pop(name, {}) for name, part in given.items()} | sections)

    return write_recipe


def logged(run):
    """metrics.jsonl without what a clock says."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in entry.items() if name not in ("seconds", "spent", "peak_rss_mib")}
        for entry in entries
    ]


def weights(run):
    return (run / "model" / "model.safetensors").read_bytes()


def steps_of(events):
    return [event for event in events if isinstance(event, StepInfo)]


@pytest.mark.parametrize("case", every(2, CASES))
def test_run_on_a_stream_that_was_stopped_equals_one_that_was_not(tmp_path, streamed, run, case):
    recipe = streamed(**CASES[case])
    assert run(recipe, "whole")[0].rows is None
    stop_at(recipe, tmp_path / "stopped", 13)
    events = run(recipe, "stopped", resume=True)
    assert events[0].first_step == 12  # in the second epoch, in the middle of a chunk
    assert weights(tmp_path / "stopped" / "tiny") == weights(tmp_path / "whole" / "tiny")
    assert logged(tmp_path / "stopped" / "tiny") == logged(tmp_path / "whole" / "tiny")


def test_a_buffer_that_holds_all_rows_gives_the_run_without_streaming(tmp_path, streamed, run):
    run(streamed(data={"shuffle_buffer": 100}), "streamed")
    run(streamed(data={"streaming": False}), "whole")
    run(streamed(), "chunks")
    assert weights(tmp_path / "streamed" / "tiny") == weights(tmp_path / "whole" / "tiny")
    assert weights(tmp_path / "chunks" / "tiny") != weights(tmp_path / "whole" / "tiny")


@pytest.mark.slow
def test_two_processes_read_the_batches_of_one(tmp_path, streamed, run):
    exact = {"model": {"dropout": 0.0}}
    run(streamed(**exact, train={"batch_size": 6}), "one")
    half = streamed(**exact, train={"batch_size": 3})
    assert run_group(2, lambda: list(train(load_recipe(half), tmp_path / "two")), tmp_path / "output") == [0, 0]
    one, two = (logged(tmp_path / runs / "tiny")[1:] for runs in ("one", "two"))
    assert [(line["rows"], line["tokens"]) for line in one] == [(line["rows"], line["tokens"]) for line in two]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-3)


def test_a_stream_and_a_source_in_memory_take_turns(tmp_path, streamed, run):
    flowing = {"data": {"dataset": "./rows.jsonl", "format": "positive_pair", "streaming": True, "shuffle_buffer": 16}}
    objectives = [flowing | {"loss": "multiple_negatives_ranking", "weight": 2.0}, WHOLE | {"weight": 1.0}]
    recipe = streamed(objectives=objectives, loss=None)
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"data": None}))
    assert [each["share"] for each in check(recipe, [])["objectives"]] == pytest.approx([2 / 3, 1 / 3])
    taken = [step.objectives[0] for step in steps_of(run(recipe, "whole"))]
    assert all(sorted(taken[i : i + 3]) == [0, 0, 1] for i in range(0, 12, 3))
    stop_at(recipe, tmp_path / "stopped", 11)
    run(recipe, "stopped")
    assert weights(tmp_path / "stopped" / "tiny") == weights(tmp_path / "whole" / "tiny")


def test_a_wrong_row_is_met_when_it_is_read_and_the_mended_run_goes_on(tmp_path, streamed, run):
    recipe, path = streamed(), tmp_path / "rows.jsonl"
    good = path.read_text()
    run(recipe, "whole")
    lines = good.splitlines()
    lines[33] = json.dumps(json.loads(lines[33]) | {"positive": 7})
    path.write_text("\n".join(lines) + "\n")
    assert check(recipe, [])["errors"] == []  # it has looked at the first rows
    (found,) = check(recipe, [], full=True)["errors"]
    assert (found.file, found.row) == (str(path), 34)
    with pytest.raises(DataError, match="is not text in row 34, but a number: 7") as caught:
        run(recipe, "mended")
    assert caught.value.exit_code == 3
    assert caught.value.problems[0].file == str(path)
    assert [folder.name for folder in (tmp_path / "mended" / "tiny" / "checkpoints").iterdir()] == ["step-00000004"]
    path.write_text(good)
    with pytest.raises(LockError, match=r"data\.0\.fingerprint"):
        run(recipe, "mended", resume=True)
    assert run(recipe, "mended")[0].first_step == 4
    assert weights(tmp_path / "mended" / "tiny") == weights(tmp_path / "whole" / "tiny")


def test_a_signal_does_not_wait_for_a_chunk_that_takes_too_long(tmp_path, streamed, run):
    recipe, read = streamed(), chunks.examples_in
    run(recipe, "whole")

    def strike():
        signals.SIGNAL_PATIENCE, left = 0.0, [signal.SIGTERM]

        def struck(table, source):
            if table.row[0] == 25 and left:  # in the second chunk, after four steps
                send(left.pop())
            return read(table, source)

        chunks.examples_in = struck
        list(train(load_recipe(recipe), tmp_path / "struck"))

    assert run_in_child(strike, tmp_path / "output") == 143
    assert "step 4 is saved" in (tmp_path / "output").read_text()
    run(recipe, "struck", resume=True)
    assert weights(tmp_path / "struck" / "tiny") == weights(tmp_path / "whole" / "tiny")


def test_a_class_that_no_name_stands_for_is_refused_before_the_first_step(streamed, run):
    with pytest.raises(DataError, match="the classes of a stream are not known in advance"):
        run(streamed(data={"format": "labeled_pair"}, loss="softmax"))


def test_check_says_that_it_looked_at_the_first_rows_and_what_a_stream_can_not_do(tmp_path, streamed):
    result = check(streamed(), [])
    assert (result["rows"], result["looked_at"]) == (16, "the first of a stream")
    assert (result["steps"], result["errors"]) == (14, [])
    wrong = {"holdout": {"rows": 4}, "shuffle": True, "limit": 9, "split": "train[:50%]"}
    recipe = streamed(model={"base": {"type": "static"}}, data=wrong, train={"max_steps": None})
    result = check(recipe, [])
    assert {problem.code for problem in result["errors"]} == {"streaming"}
    assert len(result["errors"]) == 6
    assert result["error"]["exit_code"] == RecipeError.exit_code
