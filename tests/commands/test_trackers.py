"""What a run tells the trackers of its recipe, read back from their own files; none of them reaches a network."""

import json
from contextlib import contextmanager
from typing import ClassVar, Literal

import pytest

from stfit.commands.train import train
from stfit.errors import RecipeError
from stfit.events import Evaluated, Started, StepInfo
from stfit.recipe.load import load_recipe
from stfit.runtime.run_folder import RunFolder
from stfit.spec import Spec
from stfit.tracking.trackers import TensorBoard, _mlflow_name
from stfit.workflows.train.log_to_trackers import log_to_trackers

REGULARIZER = "global_orthogonal_regularization"
METRIC = "scores/spearman_cosine"


@pytest.fixture
def logged(tmp_path):
    """(loss of each step, the metric at each of its steps) as metrics.jsonl has them."""

    def read(runs="runs"):
        path = tmp_path / runs / "tiny" / "metrics.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        losses = {entry["step"]: entry["loss"] for entry in entries if entry["event"] == "step"}
        return losses, {entry["step"]: entry[METRIC] for entry in entries if entry["event"] == "eval"}

    return read


def stop_after(recipe, runs, step):
    events = train(load_recipe(recipe), runs)
    next(event for event in events if isinstance(event, StepInfo) and event.step == step)
    events.close()


def scalars(folder, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {each.step: each.value for each in found.Scalars(name)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_every_step_once_also_of_a_run_that_went_on(tmp_path, write, run, similarity, logged):
    pytest.importorskip("tensorboard")
    recipe = write(eval=[similarity], track=["tensorboard"], loss=["multiple_negatives_ranking", REGULARIZER])
    stop_after(recipe, tmp_path / "runs", 5)
    run(recipe)
    losses, metrics = logged()
    folder = tmp_path / "runs" / "tiny" / "tensorboard"
    assert scalars(folder, "train/loss") == pytest.approx(losses)
    of_each = [scalars(folder, f"train/loss/{name}") for name in ("multiple_negatives_ranking", REGULARIZER)]
    assert {step: of_each[0][step] + of_each[1][step] for step in losses} == pytest.approx(losses, rel=1e-5)
    assert scalars(folder, METRIC) == pytest.approx(metrics)
    hyper_parameters = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"train.learning_rate" in hyper_parameters


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_parameters_and_metrics_by_their_names(tmp_path, write, run, similarity, logged, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    recipe = write(eval=[similarity], track=[{"type": "mlflow", "experiment": "animals"}])
    stop_after(recipe, tmp_path / "runs", 5)
    run(recipe)
    (found,) = mlflow.search_runs(experiment_names=["animals"], output_format="list")
    assert found.data.params["train.learning_rate"] == "0.01"
    losses, metrics = logged()
    told = mlflow.MlflowClient().get_metric_history(found.info.run_id, METRIC)
    assert {each.step: each.value for each in told} == pytest.approx(metrics)
    told = mlflow.MlflowClient().get_metric_history(found.info.run_id, "train/loss")
    assert {each.step: each.value for each in told} == pytest.approx(losses)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_an_offline_run_and_says_that_what_goes_on_is_apart(
    tmp_path, write, run, similarity, monkeypatch, caplog, capfd
):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    recipe = write(eval=[similarity], track=["wandb"])
    stop_after(recipe, tmp_path / "runs", 5)
    assert "wandb can't resume" not in caplog.text
    assert "Traceback" not in capfd.readouterr().err  # it prints those that pass through its own `with`
    run(recipe)
    identity = json.loads((tmp_path / "runs" / "tiny" / "tracked.json").read_text())["id"]
    first, second = (tmp_path / "runs" / "tiny" / "wandb").glob(f"offline-run-*/run-{identity}.wandb")
    for name in (b"train/loss", METRIC.encode(), b"train.learning_rate"):
        assert name in first.read_bytes()
        assert name in second.read_bytes()
    assert f"wandb sync --id {identity}" in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trackio_goes_on_with_the_run_that_it_keeps_on_this_machine(
    tmp_path, write, run, similarity, monkeypatch, logged
):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    import sqlite3

    recipe = write(eval=[similarity], track=[{"type": "trackio", "project": "animals"}])
    stop_after(recipe, tmp_path / "runs", 5)
    run(recipe)
    (kept,) = (tmp_path / "trackio").glob("animals*.db")
    with sqlite3.connect(kept) as base:
        rows = base.execute("select run_id, step, metrics from metrics").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    entries = [(step, json.loads(metrics)) for _, step, metrics in rows]
    losses, metrics = logged()
    for name, expected in (("train/loss", losses), (METRIC, metrics)):
        told = [(step, numbers[name]) for step, numbers in entries if name in numbers]
        assert {step for step, _ in told} == set(expected)
        assert [value for _, value in told] == pytest.approx([expected[step] for step, _ in told])


def test_missing_package_is_said_before_anything_is_read(tmp_path, write, run, monkeypatch):
    monkeypatch.setattr(TensorBoard, "package", "no_such_package")
    with pytest.raises(RecipeError, match=r"track\.0: tensorboard needs a package .* install the extra `tensorboard`"):
        run(write(track=["tensorboard"]))


def test_trackers_change_nothing_and_start_no_new_run(tmp_path, write, run):
    pytest.importorskip("tensorboard")
    run(write())
    (again,) = run(write(track=["tensorboard"]))
    assert again.again


class Failing(Spec):
    """A tracker that fails at `moment`, as servers and packages do."""

    package: ClassVar[str] = "json"
    type: Literal["failing"] = "failing"
    moment: str

    @contextmanager
    def start(self, run):
        self.fail_at("start")
        try:
            yield lambda step, metrics: self.fail_at("log")
        finally:
            self.fail_at("end")

    def fail_at(self, moment):
        if moment == self.moment:
            raise ValueError(f"refused\nat the {moment}")


@pytest.fixture
def tracked(write, tmp_path):
    """Passes events of a run to a tracker that fails at a moment."""
    recipe, folder = load_recipe(write()).recipe, RunFolder(tmp_path)

    def pass_on(moment):
        events = [Started(tmp_path, 12, {}, 0, 2, []), Evaluated(1, {"a": 0.1}), Evaluated(2, {"a": 0.2})]
        return log_to_trackers(events, recipe.model_copy(update={"track": [Failing(moment=moment)]}), folder)

    return pass_on


@pytest.mark.parametrize("moment", ["start", "log", "end", "never"])
def test_a_tracker_that_fails_at_any_time_is_a_warning_and_nothing_is_lost(tracked, caplog, moment):
    assert [type(event) for event in tracked(moment)] == [Started, Evaluated, Evaluated]
    expected = [f"track: failing failed and is disabled: refused at the {moment}"]
    assert caplog.messages == (expected if moment != "never" else [])


def test_a_failing_tracker_does_not_hide_why_the_run_ended(tracked):
    events = tracked("end")
    next(events)
    with pytest.raises(ZeroDivisionError):
        events.throw(ZeroDivisionError())


def test_names_that_mlflow_refuses_are_changed_and_others_kept():
    assert _mlflow_name("dev[not similar!]@128#int8/ndcg@10") == "dev_not similar___at_128_int8/ndcg_at_10"
    assert _mlflow_name("train/tokens_per_second") == "train/tokens_per_second"
