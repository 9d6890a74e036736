"""The memory that `check` forecasts, and what a training then uses."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from stfit.commands.check import check
from stfit.encoder.build import build_encoder
from stfit.events import Evaluated
from stfit.recipe.load import load_recipe
from stfit.runtime import system
from stfit.runtime.malloc import KERNEL_CACHES, limit_kernel_caches

STATIC = {"base": {"type": "static", "embedding_dim": 64}}


def parts(path, *overrides):
    return check(path, list(overrides))["memory_parts"]


def peak_of_training(path, *overrides):
    command = [sys.executable, "-m", "stfit", "train", path, *overrides, "--runs", path.parent / "runs", "--json"]
    done = subprocess.run([*map(str, command), "--fresh"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["peak_rss_mib"]


@pytest.mark.slow
@pytest.mark.parametrize("sections", [{}, {"model": STATIC}], ids=["transformer", "static"])
def test_the_peak_of_a_training_is_in_the_range_of_its_forecast(write, similarity, sections):
    path = write(eval=[similarity], **sections)
    low, high = check(path, [])["memory_range_mib"]
    assert low <= peak_of_training(path) <= high


@pytest.mark.slow
def test_a_long_training_needs_no_more_memory_than_a_short_one(write, tmp_path):
    path = write(train={"batch_size": 8, "max_steps": 2, "log_every_steps": 100, "save_every_steps": 1000})
    rows = [{"anchor": f"the {i} " * (i % 97 + 1), "positive": f"a {i} " * (i % 89 + 1)} for i in range(800)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    unlimited = "model.max_seq_length=200"
    assert peak_of_training(path, unlimited, "train.max_steps=100") < peak_of_training(path, unlimited) + 100


def test_the_upper_end_is_the_forecast_of_one_number_and_the_parts_make_the_range(write, similarity):
    result = check(write(eval=[similarity]), [])
    lows, highs = zip(*result["memory_parts"].values(), strict=True)
    assert result["memory_range_mib"] == [sum(lows), sum(highs)]
    assert result["memory_mib"] == sum(highs)


@pytest.mark.parametrize(
    ("part", "overrides"),
    [
        ("weights", ["model.base.hidden_size=64"]),
        ("gradients and moments", ["model.base.hidden_size=64"]),
        ("activations", ["model.base.num_layers=8"]),
        ("activations", ["train.batch_size=1024"]),
        ("loss", ["train.batch_size=1024"]),
    ],
)
def test_each_part_grows_with_what_it_is_made_of(write, tmp_path, part, overrides):
    path = write(model={"base": {"type": "scratch", "hidden_size": 32, "num_layers": 2, "num_heads": 2}})
    rows = [{"anchor": f"a{i} " * 12, "positive": f"b{i} " * 12} for i in range(1024)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert parts(path, *overrides)[part][1] > parts(path)[part][1]


def test_gradient_caching_needs_less_memory_for_activations(write, tmp_path):
    path = write(train={"batch_size": 512})
    rows = [{"anchor": f"a{i} " * 20, "positive": f"b{i} " * 20} for i in range(512)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert parts(path, "train.mini_batch_size=16")["activations"][1] < parts(path)["activations"][1]


def test_adapters_and_frozen_weights_have_no_moments(write, tiny_base):
    path = write(model={"base": str(tiny_base("bert"))}, train={"freeze": ["backbone.embeddings.*"]})
    frozen = load_footprint(path).trained
    encoder = build_encoder(load_recipe(path).recipe.model)
    table = sum(weight.numel() for name, weight in encoder.named_parameters() if ".embeddings." in name)
    assert frozen == sum(weight.numel() for weight in encoder.parameters()) - table


def load_footprint(path):
    from stfit.encoder.folder.inspect import inspect_model
    from stfit.workflows.check.memory import Footprint

    recipe = load_recipe(path).recipe
    return Footprint(recipe, inspect_model(recipe.model), [], None, 0)


def test_a_training_larger_than_the_machine_is_warned_of_with_the_key_to_change(write):
    path = write(model={"base": {"type": "scratch", "hidden_size": 65_536, "num_layers": 48, "num_heads": 2}})
    (problem,) = [problem for problem in check(path, [])["warnings"] if problem.code == "memory"]
    assert "gradients and moments" in problem.message
    assert "model.lora" in problem.message
    assert "memory" not in [problem.code for problem in check(write(), [])["warnings"]]


def test_a_container_has_no_more_memory_than_its_limit(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(system, "CGROUP_LIMITS", [str(limit)])
    total = system.usable_memory()
    limit.write_text("max\n")
    assert system.usable_memory() == total == psutil.virtual_memory().total
    limit.write_text("1048576\n")
    assert system.usable_memory() == 2**20


def test_tokens_of_evaluation_are_those_of_the_texts_times_the_evaluations_of_a_run(write, similarity, run, tiny_base):
    path = write(model={"base": str(tiny_base("bert")), "max_seq_length": 8}, eval=[similarity])
    result = check(path, [])
    events = run(path)
    tokenizer = build_encoder(load_recipe(path).recipe.model).tokenizer
    rows = [json.loads(line) for line in (path.parent / "rows.jsonl").read_text().splitlines()]
    texts = sorted({row[role] for row in rows for role in ("sentence1", "sentence2")})
    assert result["evaluations"] == len([event for event in events if isinstance(event, Evaluated)])
    assert result["evaluation_tokens"] == result["evaluations"] * sum(map(len, tokenizer(texts)))


def test_a_run_says_its_peak_after_the_first_evaluation_and_step_and_records_it_with_each_step(
    write, similarity, run, tmp_path, caplog
):
    caplog.set_level("INFO", "stfit")
    run(write(eval=[similarity]))
    said = [message for message in caplog.messages if message.startswith("peak memory")]
    assert [message.partition(" after the ")[2] for message in said] == ["first evaluation", "first step"]
    (log,) = tmp_path.glob("runs/*/metrics.jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    peaks = [entry["peak_rss_mib"] for entry in entries if entry["event"] == "step"]
    assert len(peaks) == 6
    assert 0 < peaks[0] <= peaks[-1]


def test_kernel_caches_keep_the_size_that_the_user_sets(monkeypatch):
    first, second = KERNEL_CACHES
    monkeypatch.setenv(first, "7")
    monkeypatch.delenv(second, raising=False)
    limit_kernel_caches()
    assert os.environ[first] == "7"
    assert int(os.environ[second]) < 1024
