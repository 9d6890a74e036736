"""What `stfit eval` takes for a model, and what it decides."""

import json

import numpy as np
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


RETRIEVAL = {
    "type": "retrieval",
    "name": "docs",
    "dataset": "./rows.jsonl",
    "split": "train",
    "by": "label",
    "k": [1, 3],
}


def test_details_tell_the_texts_metrics_and_ranks_of_each_row(write, run, similarity, tmp_path) -> None:
    recipe = write(eval=[similarity, RETRIEVAL], train={"max_steps": 1})
    run(recipe)
    model, out = str(tmp_path / "runs" / "tiny"), tmp_path / "details.jsonl"
    result, _ = evaluate(model, load_recipe(recipe).recipe, details=out)
    assert result["details"] == str(out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    pairs, queries = ([line for line in lines if line["evaluator"] == name] for name in ("scores", "docs"))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(pair["sentence1"], pair["label"]) for pair in pairs] == [(row["sentence1"], row["score"]) for row in rows]
    assert np.corrcoef([pair["similarity"] for pair in pairs], [row["score"] for row in rows])[0, 1] == pytest.approx(
        result["metrics"]["scores/pearson_cosine"]
    )
    for metric in ("accuracy@1", "ndcg@3", "mrr@3"):
        assert np.mean([query[metric] for query in queries]) == pytest.approx(result["metrics"][f"docs/{metric}"])
    for query in queries:
        ranks = [found["rank"] for found in query["relevant"]]
        assert query["accuracy@1"] == float(1 in ranks)
        assert query["mrr@3"] == pytest.approx(1 / ranks[0] if ranks[0] else 0.0)
        assert all((found["similarity"] is None) == (found["rank"] is None) for found in query["relevant"])
    assert {query["slice"] for query in queries} == set(result["slices"]["docs/ndcg@3"])


def test_a_comparison_names_the_rows_that_moved_most(write, run, tmp_path) -> None:
    recipe = write(eval=[RETRIEVAL], train={"max_steps": 6, "learning_rate": 0.05})
    run(recipe)
    base = json.loads(recipe.read_text())["model"]["base"]
    run(write(eval=[RETRIEVAL], train={"max_steps": 1}, model={"base": base}), "other")
    models = [str(tmp_path / runs / "tiny") for runs in ("runs", "other")]
    result, _ = evaluate(models[0], load_recipe(recipe).recipe, models[1])
    ((metric, moved),) = result["compare"]["moved"].items()
    assert metric == "docs/ndcg@3"
    changes = [abs(row["value"] - row["other"]) for row in moved]
    assert changes == sorted(changes, reverse=True)
    assert 0 < len(moved) <= 10
    assert all(row["query"] for row in moved)
    same, _ = evaluate(models[0], load_recipe(recipe).recipe, models[0])
    assert "moved" not in same["compare"]


def test_details_do_not_replace_an_input(write, run, tmp_path) -> None:
    recipe = write(eval=[RETRIEVAL], train={"max_steps": 1})
    run(recipe)
    with pytest.raises(RecipeError, match=r"rows\.jsonl"):
        evaluate(str(tmp_path / "runs" / "tiny"), load_recipe(recipe).recipe, details=tmp_path / "rows.jsonl")
