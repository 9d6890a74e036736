"""What a training is told to do by its recipe, it does."""

import json
import logging

import numpy as np
import pytest

from stfit import evaluate
from stfit.encoder.build import load_encoder
from stfit.errors import DataError, DivergedError, RecipeError
from stfit.events import Evaluated, Finished, StepInfo
from stfit.runtime import device

FORMATS = {
    "labeled_pair of classes": ("labeled_pair", "softmax", {}),
    "labeled_pair of 0 and 1": ("labeled_pair", "contrastive", {"label_map": {"0": 0, "1": 1, "2": 1}}),
    "labeled_pair of scores": ("labeled_pair", "cosent", {"columns": {"label": "score"}}),
    "positive_pair": ("positive_pair", "multiple_negatives_ranking", {}),
    "labeled_text": ("labeled_text", "batch_hard_triplet", {}),
    "triplet": ("triplet", "triplet", {}),
}


@pytest.mark.parametrize("case", FORMATS.values(), ids=FORMATS)
def test_every_format_trains_and_sentence_transformers_loads_the_model(tmp_path, write, run, sentences, case):
    peer = pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")
    format, loss, data = case
    events = run(write(data={"format": format, **data}, loss=loss, train={"max_steps": 2}))
    assert [event.step for event in events if isinstance(event, StepInfo)] == [1, 2]
    folder = tmp_path / "runs" / "tiny" / "model"
    model = peer.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(
        load_encoder(folder).encode(sentences), model.encode(sentences, show_progress_bar=False), atol=1e-5
    )


def test_result_has_the_keys_of_the_design_and_before_and_after(write, run, similarity):
    finished = run(write(eval=[similarity]))[-1]
    assert isinstance(finished, Finished)
    keys = ["run", "model", "steps", "seconds", "examples_per_second", "peak_rss_mib", "baseline", "metrics"]
    assert set(keys) <= finished.result.keys()
    assert finished.result["steps"] == 6
    assert finished.result["baseline"].keys() == finished.result["metrics"].keys()
    assert finished.result["baseline"] != finished.result["metrics"]
    assert finished.main == ["scores/spearman_cosine"]


def test_speed_leaves_out_two_steps_of_warm_up(write, run):
    assert run(write(train={"max_steps": 2}))[-1].result["examples_per_second"] is None
    assert run(write(train={"max_steps": 3}))[-1].result["examples_per_second"] > 0


def test_the_loss_that_is_logged_is_the_mean_since_the_last(tmp_path, write, run):
    losses = [event.loss for event in run(write(train={"log_every_steps": 4})) if isinstance(event, StepInfo)]
    lines = (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["event"] == "step"]
    assert [entry["step"] for entry in entries] == [4, 6]
    assert [entry["loss"] for entry in entries] == pytest.approx([np.mean(losses[:4]), np.mean(losses[4:])])


def test_every_loss_of_a_list_is_logged_and_their_sum_is_the_loss(tmp_path, write, run, similarity):
    losses = [
        {"type": "softmax", "weight": 0.5},
        {"type": "global_orthogonal_regularization", "columns": ["sentence2"]},
    ]
    data = {"format": "labeled_pair"}
    events = run(write(data=data, loss=losses, train={"log_every_steps": 4}, eval=[similarity]))
    steps = [event for event in events if isinstance(event, StepInfo)]
    assert all(step.loss == pytest.approx(sum(step.terms.values())) for step in steps)
    folder = tmp_path / "runs" / "tiny"
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    entries = [entry for entry in entries if entry["event"] == "step"]
    for name in ("softmax", "global_orthogonal_regularization"):
        values = [step.terms[name] for step in steps]
        assert [entry[f"loss/{name}"] for entry in entries] == pytest.approx([np.mean(values[:4]), np.mean(values[4:])])
    assert not any("terms" in entry for entry in entries)


def test_evaluators_run_when_they_are_told_to(write, run, similarity):
    evaluators = [similarity | {"name": name, "when": [name]} for name in ("start", "during", "end")]
    events = run(write(eval=evaluators, train={"eval_every_steps": 2}))
    found = [
        (event.step, {name.split("/")[0] for name in event.metrics}) for event in events if isinstance(event, Evaluated)
    ]
    assert found == [(0, {"start"}), (2, {"during"}), (4, {"during"}), (6, {"end"})]
    assert {name.split("/")[0] for name in events[-1].result["metrics"]} == {"during", "end"}


def test_the_time_left_counts_an_evaluation_that_has_not_run_yet(write, run, similarity):
    steps = [event for event in run(write(eval=[similarity | {"when": ["end"]}])) if isinstance(event, StepInfo)]
    assert steps[-1].seconds_left > 0
    steps = [event for event in run(write(eval=[]), "unmeasured") if isinstance(event, StepInfo)]
    assert steps[-1].seconds_left == 0 < steps[0].seconds_left


def test_evaluation_in_between_changes_no_weight(tmp_path, write, run, similarity):
    run(write(), "without")
    run(write(eval=[similarity], train={"eval_every_steps": 1}), "with")
    one, other = (tmp_path / name / "tiny" / "model" / "model.safetensors" for name in ("without", "with"))
    assert one.read_bytes() == other.read_bytes()


BEST = {"best": "scores/spearman_cosine", "eval_every_steps": 1, "learning_rate": 0.05, "max_steps": 8}


def test_model_folder_is_that_of_the_best_evaluation(tmp_path, write, run, similarity):
    events = run(write(eval=[similarity], train=BEST))
    entries = [json.loads(line) for line in (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()]
    values = [entry[BEST["best"]] for entry in entries if entry["event"] == "eval" and entry["step"] > 0]
    assert values[-1] < max(values)
    assert events[-1].result["metrics"][BEST["best"]] == pytest.approx(max(values), abs=1e-12)


def test_metrics_at_the_end_are_those_of_the_best_model(write, run, similarity):
    at_end = similarity | {"name": "last", "when": ["end"]}
    metrics = run(write(eval=[similarity, at_end], train=BEST))[-1].result["metrics"]
    assert metrics["last/pearson_dot"] == metrics["scores/pearson_dot"]


def test_early_stopping_ends_the_run_after_so_many_evaluations_without_gain(write, run, similarity):
    stopping = {"early_stopping": {"patience": 2, "min_delta": 2.0}}  # no correlation can gain that much
    events = run(write(eval=[similarity], train=BEST | stopping))
    assert [event.step for event in events if isinstance(event, StepInfo)] == [1, 2, 3]
    assert events[-1].result["steps"] == 3


def test_unknown_best_metric_is_refused_with_the_nearest_known_one(write, run, similarity):
    with pytest.raises(RecipeError, match="did you mean `scores/spearman_cosine`"):
        run(write(eval=[similarity], train={"best": "scores/spearman_cosin"}))
    with pytest.raises(RecipeError, match=r"no evaluator computes .* during training"):
        run(write(eval=[similarity | {"when": ["end"]}], train={"best": "scores/spearman_cosine"}))


def test_too_high_a_learning_rate_is_reported_as_divergence(tmp_path, write, run):
    with pytest.raises(DivergedError, match=r"Lower train\.learning_rate"):
        run(write(train={"learning_rate": 1e30, "max_grad_norm": None}))
    assert not (tmp_path / "runs" / "tiny" / "model").exists()


def test_model_that_the_last_step_broke_is_not_reported_as_a_result(tmp_path, write, run, similarity):
    with pytest.raises(DivergedError, match="not finite"):
        run(write(eval=[similarity], train={"learning_rate": 1e30, "max_steps": 1}))
    assert not (tmp_path / "runs" / "tiny" / "result.json").exists()


def test_model_that_the_last_step_broke_is_not_written(tmp_path, write, run):
    """No step comes after the last one that would notice."""
    with pytest.raises(DivergedError, match="weights are not finite"):
        run(write(train={"learning_rate": 1e39, "max_steps": 1, "warmup_steps": 0, "schedule": "constant"}))
    assert not (tmp_path / "runs" / "tiny" / "model").exists()


def test_run_that_learns_nothing_says_so(write, run, caplog):
    run(write(data={"format": "triplet"}, loss={"type": "triplet", "margin": 1e-9, "distance": "cosine"}))
    rate_zero = {"learning_rate": 0.0, "max_steps": 2}
    run(write(train=rate_zero, seed=1))
    run(write(train={"warmup_steps": 9}, seed=2))
    assert "is 0, so no weight will change" in caplog.text
    assert "the learning rate never reaches its maximum" in caplog.text
    with pytest.raises(RecipeError, match="freezes all weights of the encoder"):
        run(write(train={"freeze": ["*"]}))


def test_problems_of_training_data_and_evaluators_come_together(write, run, similarity):
    evaluator = similarity | {"columns": {"label": "nothing"}}
    with pytest.raises(DataError) as caught:
        run(write(data={"columns": {"anchor": "missing"}}, eval=[evaluator]))
    assert "missing" in str(caught.value)
    assert "nothing" in str(caught.value)


def test_holdout_is_trained_on_by_nobody_and_measured(write, run):
    data = {"format": "labeled_pair", "columns": {"label": "score"}, "holdout": {"rows": 4}}
    events = run(write(data=data, loss="cosent", eval=[{"type": "similarity", "from": "holdout"}]))
    assert events[0].rows == 8
    assert "holdout/spearman_cosine" in events[-1].result["metrics"]


def test_every_seed_is_measured_on_the_same_rows(write, run, similarity):
    base = run(write(), "base")[-1].result["model"]
    data = {"format": "labeled_pair", "columns": {"label": "score"}}
    evaluators = [{"type": "similarity", "from": "holdout"}, similarity | {"shuffle": True, "limit": 6}]
    before = []
    for seed, held in ((1, 42), (2, 42), (2, 7)):
        holdout = {"holdout": {"rows": 4, "seed": held}}
        recipe = write(seed=seed, model={"base": base}, data=data | holdout, loss="cosent", eval=evaluators)
        before.append(run(recipe, f"{seed}-{held}")[-1].result["baseline"])
    assert before[0] == before[1]
    assert before[1]["scores/spearman_cosine"] == before[2]["scores/spearman_cosine"]
    assert before[1]["holdout/spearman_cosine"] != before[2]["holdout/spearman_cosine"]


def test_a_training_says_whether_its_gate_is_passed(write, run, similarity, caplog):
    metric = "scores/spearman_cosine"
    gates = [{"metric": metric, "min": -1}, {"metric": metric, "min": 2}, {"metric": metric, "against": "base"}]
    gates[2] |= {"min_gain": -2, "confidence": None}
    result = run(write(eval=[similarity], gate=gates))[-1].result
    assert [gate["passed"] for gate in result["gate"]] == [True, False, True]
    assert [gate["value"] for gate in result["gate"]] == [result["metrics"][metric]] * 3
    assert result["gate"][2]["other"] == result["baseline"][metric]
    again = write(eval=[similarity], gate=gates)
    assert run(again)[-1].result["gate"] == result["gate"]
    assert "the gate has changed since" not in caplog.text
    assert "gate" not in run(write(eval=[similarity], gate=gates[:1]))[-1].result  # no verdict of another gate
    assert "the gate has changed since" in caplog.text
    assert "gate" not in run(write(eval=[similarity]), "other")[-1].result
    missing = run(write(eval=[similarity], gate=[{"metric": metric, "against": "./nowhere"}]), "missing")[-1].result
    assert "gate" not in missing  # which no training is lost for
    assert "holding the model against its gate" in caplog.text


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "meta", "hpu", "CPU", ""])
def test_device_that_is_not_there_is_refused(name):
    with pytest.raises(RecipeError, match=f"device `{name}` is not available") as caught:
        device.choose_device(name)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_on_a_cpu_that_only_emulates_it_is_warned_of(write, run, monkeypatch, caplog, supported):
    monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda: supported)
    run(write(train={"max_steps": 1, "precision": "bfloat16"}))
    assert ("float32 is faster" in caplog.text) == (not supported)


def test_a_training_in_bfloat16_is_measured_in_float32_as_its_model_will_be(write, run, similarity):
    recipe = write(eval=[similarity], train={"precision": "bfloat16"})
    result = run(recipe)[-1].result
    assert result["metrics"] == evaluate(result["model"], recipe)["metrics"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_metric_that_is_undefined_is_warned_of(write, run, similarity, caplog):
    layers = {"layers": [{"type": "dense", "out_features": 8, "activation": "identity"}]}
    train = {"max_steps": 1, "learning_rate": 1e20, "freeze": ["backbone*"], "warmup_ratio": None}
    with caplog.at_level(logging.WARNING, "stfit"):
        run(write(model=layers, train=train, eval=[similarity]))
    assert any("undefined-metric" in message for message in caplog.messages)
