"""What `stfit eval` takes for a model, and what it decides."""

import json

import pytest

from stfit.commands.evaluate import evaluate
from stfit.encoder.folder.resolve import model_in
from stfit.errors import ModelError, RecipeError
from stfit.recipe.load import load_recipe


def test_a_run_folder_means_its_model(tmp_path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "modules.json").write_text("[]")
    assert model_in(str(tmp_path / "run")) == str(tmp_path / "run" / "model")
    assert model_in(str(tmp_path / "run" / "model")) == str(tmp_path / "run" / "model")


def test_a_mistyped_run_is_not_asked_of_the_hub(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelError, match="no such run"):
        model_in("runs/typo")
    (tmp_path / "runs" / "mine" / "model").mkdir(parents=True)
    with pytest.raises(ModelError, match="Did you mean runs/mine"):
        model_in("mine")
    assert model_in("owner/name") == "owner/name"


METRIC = "scores/spearman_cosine"


@pytest.fixture
def trained(tmp_path, write, run, similarity):
    """A run, and a way to evaluate it with another gate."""
    result = run(write(eval=[similarity], train={"learning_rate": 0.05}))[-1].result

    def held_against(*gate, compare=None):
        return evaluate(result["run"], load_recipe(write(eval=[similarity], gate=list(gate))).recipe, compare)[0]

    return result, held_against


def test_base_of_a_gate_is_the_model_before_its_first_step(trained) -> None:
    result, held_against = trained
    (line,) = held_against({"metric": METRIC, "against": "base", "confidence": None})["gate"]
    assert line["other"] == pytest.approx(result["baseline"][METRIC], abs=1e-6)
    assert line["value"] == pytest.approx(result["metrics"][METRIC], abs=1e-6)
    assert line["passed"] == (line["value"] >= line["other"])


def test_every_line_of_a_gate_counts_and_one_that_is_skipped_does_not(trained) -> None:
    result, held_against = trained
    lines = [
        {"metric": METRIC, "min": -1.0},
        {"metric": METRIC, "min": 1.5},
        {"metric": METRIC, "against": result["run"]},
        {"metric": METRIC, "against": result["run"], "min_gain": 0.1},
        {"metric": METRIC, "against": "published"},
    ]
    found = held_against(*lines)
    assert [line["passed"] for line in found["gate"]] == [True, False, True, False, None]
    assert found["error"]["exit_code"] == 7
    assert "2 of 5 gates failed" in found["error"]["message"]
    assert "error" not in held_against(lines[0], lines[4])
    json.dumps(found)


@pytest.mark.slow
def test_a_model_compared_with_itself_is_no_better(trained) -> None:
    result, held_against = trained
    both = held_against(compare=result["run"])["compare"]["metrics"]
    assert set(both) == {name for name in result["metrics"] if name.startswith("scores/")}
    assert {found["verdict"] for found in both.values()} == {"no evidence"}
    assert {found["gain"] for found in both.values()} == {0.0}


def test_a_gate_on_an_unknown_metric_lists_what_there_is(write, run, similarity) -> None:
    with pytest.raises(
        RecipeError, match=r"gate\.0\.metric: no evaluator computes .* after training: .*known metrics: scores/spear"
    ):
        run(write(eval=[similarity], gate=[{"metric": "nothing", "min": 0.5}]))
    recipe = load_recipe(write(eval=[similarity], gate=[{"metric": "scores/spearman_cos", "min": 0}])).recipe
    with pytest.raises(RecipeError, match="did you mean `scores/spearman_cosine`"):
        evaluate("any", recipe)
