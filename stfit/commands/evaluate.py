"""`stfit eval`: run a recipe's evaluators on a model, check the gate, and compare with another model."""

from typing import Any

from stfit.encoder.folder.resolve import model_in
from stfit.recipe.recipe import Recipe
from stfit.workflows.evaluate_model import evaluate_model, gate_error


def evaluate(model: str, recipe: Recipe, baseline: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """What `stfit eval --json` prints, and the metrics to show first."""
    evaluation = evaluate_model(model, recipe, baseline)
    result: dict[str, Any] = {"model": model_in(model), "metrics": evaluation.metrics}
    if evaluation.slices:
        result["slices"] = evaluation.slices
    if recipe.gate:
        result |= {"gate": [vars(gate) for gate in evaluation.gates]} | gate_error(evaluation.gates)
    if baseline is not None:
        result["compare"] = {"model": model_in(baseline), "metrics": evaluation.comparison}
    return result, evaluation.main
