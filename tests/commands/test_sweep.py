"""A sweep trains every combination once, and says which setting is best over its seeds."""

import json
import re

import numpy as np
import pytest

from stfit.commands.evaluate import evaluate
from stfit.commands.sweep import combinations, half_width, split_values, sweep
from stfit.errors import DivergedError, GateError, InterruptedRun, ModelError, RecipeError
from stfit.recipe.load import load_recipe

MODEL = "scores/spearman_cosine"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,3", ["1", "2", "3"]),
        ("1e-5", ["1e-5"]),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ("{type: cosent, scale: 5.0},contrastive", ["{type: cosent, scale: 5.0}", "contrastive"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("", [""]),
    ],
)
def test_values_are_divided_by_commas_outside_of_brackets_and_quotes(text, values) -> None:
    assert split_values(text) == values


def test_combinations_are_all_of_them_with_a_name_each(write) -> None:
    found = combinations(write(), ["train.learning_rate=1e-3,2e-3", "seed=1,2", "train.max_steps=5"])
    assert [each.name for each in found] == [
        f"tiny-learning-rate-{rate}-seed-{seed}" for rate in ("1e-3", "2e-3") for seed in (1, 2)
    ]
    assert [(each.loaded.recipe.train.learning_rate, each.loaded.recipe.seed) for each in found] == [
        (1e-3, 1), (1e-3, 2), (2e-3, 1), (2e-3, 2),
    ]  # fmt: skip
    assert {each.loaded.recipe.train.max_steps for each in found} == {5}
    assert len({each.setting for each in found}) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=1"], "nothing to sweep"),
        (["seed=1,2", "seed=3,4"], "`seed` is given twice"),
        (["seed=1,1"], "the seed 1 is there twice"),
        (["train.learning_rat=1e-3,2e-3"], "unknown key `train.learning_rat`"),
        (["train.learning_rate=1e-3,fast"], "expected a number"),
        (["seed=" + ",".join(map(str, range(1001)))], "1001 combinations"),
    ],
)
def test_what_can_not_be_swept_is_refused_before_anything_is_trained(write, tmp_path, arguments, message) -> None:
    with pytest.raises(RecipeError, match=message):
        sweep(write(), arguments, tmp_path / "runs", None, print)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("stfit.lock"))


def test_values_that_differ_in_signs_alone_have_a_run_each(write) -> None:
    found = combinations(write(), ["train.freeze=[],[ ]"])
    assert [each.name for each in found] == ["tiny-freeze", "tiny-freeze-2"]


def test_long_values_have_numbers_for_names(write) -> None:
    loss = ",".join(f"{{type: cosent, scale: {number}.{'0' * 200}}}" for number in (1, 2))
    found = combinations(write(data={"format": "labeled_pair", "columns": {"label": "score"}}), [f"loss={loss}"])
    assert [each.name for each in found] == ["tiny-1", "tiny-2"]


def test_an_interval_is_that_of_student() -> None:
    assert half_width([1.0]) is None
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302652729 / np.sqrt(3))


def test_a_sweep_trains_each_once_and_its_best_recipe_trains_alone(write, similarity, tmp_path) -> None:
    recipe = write(eval=[similarity], train={"max_steps": 3})
    arguments, lines = ["train.learning_rate=1e-4,0.05", "seed=1,2"], []
    found = sweep(recipe, arguments, tmp_path / "runs", None, lines.append)
    folder = tmp_path / "runs" / "tiny-sweep"
    assert [line.partition(":")[0] for line in lines] == [f"{number} of 4" for number in (1, 2, 3, 4)]
    assert (found["metric"], found["failed"]) == (MODEL, {})
    for setting in found["settings"]:
        results = [json.loads((folder / name / "result.json").read_text())["result"] for name in setting["runs"]]
        assert setting["scores"] == [result["metrics"][MODEL] for result in results]
        assert setting["mean"] == pytest.approx(np.mean(setting["scores"]))
        assert setting["half_width"] == half_width(setting["scores"])
    best = max(found["settings"], key=lambda each: each["mean"])
    assert found["best"]["values"] == best["values"]
    alone = load_recipe(folder / "best.yaml").recipe
    assert alone.train.learning_rate == float(best["values"]["train.learning_rate"])
    assert "tiny-learning-rate-0.05-seed-2" in (folder / "comparison.html").read_text(encoding="utf-8")
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert sweep(recipe, arguments, tmp_path / "runs", None, lines.append) == found
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")} == written
    for wrong in ("scores/spearman", "scores[one]/spearman_cosine"):
        with pytest.raises(RecipeError, match=f"--metric {re.escape(wrong)}: no evaluator measures it; did you mean"):
            sweep(recipe, arguments, tmp_path / "runs", wrong, lines.append)


def test_runs_that_finished_with_other_evaluators_are_measured_again(write, similarity, tmp_path) -> None:
    recipe = write(eval=[similarity], train={"max_steps": 2})
    (before,) = sweep(recipe, ["seed=1,2"], tmp_path / "runs", None, print)["settings"]
    recipe = write(eval=[similarity | {"name": "renamed"}], train={"max_steps": 2})
    found = sweep(recipe, ["seed=1,2,3"], tmp_path / "runs", None, print)
    assert found["metric"] == MODEL.replace("scores/", "renamed/")
    assert found["settings"][0]["scores"][:2] == pytest.approx(before["scores"])
    assert len(found["settings"][0]["scores"]) == 3
    recipe = write(eval=[similarity | {"name": "renamed", "by": "label"}], train={"max_steps": 2})
    found = sweep(recipe, ["seed=1,2"], tmp_path / "runs", MODEL.replace("scores/", "renamed[worst]/"), print)
    assert len(found["settings"][0]["scores"]) == 2
    with pytest.raises(RecipeError, match=r"tiny-seed-1 has no metric `renamed\[nothing\]/spearman_cosine`"):
        sweep(recipe, ["seed=1,2"], tmp_path / "runs", MODEL.replace("scores/", "renamed[nothing]/"), print)


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_count(write, similarity, tmp_path) -> None:
    recipe = write(eval=[similarity], train={"max_steps": 20, "max_grad_norm": None})
    found = sweep(recipe, ["train.learning_rate=1e-3,1e30"], tmp_path / "runs", MODEL, print)
    assert found["failed"] == {"tiny-learning-rate-1e30": DivergedError.exit_code}
    assert found["error"]["exit_code"] == DivergedError.exit_code
    assert [setting["values"] for setting in found["settings"]] == [{"train.learning_rate": "1e-3"}]


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_with_what_is_left(write, similarity, tmp_path, monkeypatch) -> None:
    recipe, asked = write(eval=[similarity], train={"max_steps": 2}), []
    from stfit.commands import sweep as command

    train = command._train

    def interrupt(path, each, folder):
        asked.append(each.name)
        return 130 if len(asked) == 2 else train(path, each, folder)

    monkeypatch.setattr(command, "_train", interrupt)
    with pytest.raises(InterruptedRun, match="finished runs are kept in"):
        sweep(recipe, ["seed=1,2"], tmp_path / "runs", None, print)
    found = sweep(recipe, ["seed=1,2"], tmp_path / "runs", None, print)
    assert asked == ["tiny-seed-1", "tiny-seed-2", "tiny-seed-1", "tiny-seed-2"]
    assert len(found["settings"][0]["scores"]) == 2


def test_a_gate_over_seeds_compares_the_mean_of_a_sweep_and_refuses_a_model_alone(
    write, run, similarity, tmp_path
) -> None:
    gates = [{"metric": MODEL, "against": "base", "over": "seeds", "min_gain": -1.0}, {"metric": MODEL, "min": -1.0}]
    recipe = write(eval=[similarity], gate=gates, train={"max_steps": 3})
    found = sweep(recipe, ["seed=1,2"], tmp_path / "runs", None, print)
    (gate,) = found["gate"]
    assert (gate["value"], gate["seeds"]) == (pytest.approx(found["settings"][0]["mean"]), 2)
    one, other = (tmp_path / "runs" / "tiny-sweep" / name for name in found["settings"][0]["runs"])
    of_run, alone = json.loads((one / "result.json").read_text())["result"]["gate"]
    assert (of_run["passed"], alone["passed"]) == (True, None)
    assert "`stfit sweep` compares" in alone["note"]
    again = evaluate(str(one), load_recipe(one / "resolved.yaml").recipe)[0]
    assert again["gate"][0] == {**gate, "value": pytest.approx(gate["value"]), "low": pytest.approx(gate["low"])}

    single = run(recipe)[-1].result["model"]
    refused = evaluate(single, load_recipe(recipe).recipe)[0]
    assert refused["error"]["exit_code"] == GateError.exit_code
    assert "1 seed is no mean" in refused["error"]["message"]

    digest, _, text = (other / "resolved.yaml").read_text().partition("\n")
    assert digest.startswith("#")
    (other / "resolved.yaml").write_text(text.replace("max_steps: 3", "max_steps: 4"))
    with pytest.raises(ModelError, match="differ in more than their seed"):
        evaluate(str(one), load_recipe(one / "resolved.yaml").recipe)
    (other / "result.json").unlink()
    with pytest.raises(ModelError, match=r"seed-2, of the same sweep, has no result: run their `stfit sweep` again"):
        evaluate(str(one), load_recipe(one / "resolved.yaml").recipe)


def test_a_sweep_keeps_its_summary_if_its_gate_can_not_be_decided(write, similarity, tmp_path) -> None:
    gate = {"metric": MODEL, "against": "./nowhere", "over": "seeds"}
    recipe = write(eval=[similarity], gate=[gate], train={"max_steps": 2})
    found = sweep(recipe, ["seed=1,2"], tmp_path / "runs", None, print)
    assert found["error"]["exit_code"] == ModelError.exit_code
    assert "nowhere" in found["error"]["message"]
    summary = json.loads((tmp_path / "runs" / "tiny-sweep" / "sweep.json").read_text())
    assert summary["settings"] == found["settings"]
    assert (tmp_path / "runs" / "tiny-sweep" / "best.yaml").is_file()
