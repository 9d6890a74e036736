"""`stfit eval`: run a recipe's evaluators on a model, check the gate, and compare with another model."""

import json
from pathlib import Path
from typing import Any

from stfit.distributed import is_rank_zero
from stfit.encoder.folder.resolve import model_in, paths_of_model
from stfit.io.atomic import atomic_write
from stfit.io.outputs import require_output
from stfit.recipe.inputs import paths_in
from stfit.recipe.recipe import Recipe
from stfit.workflows.evaluate.check_gates import gate_error
from stfit.workflows.evaluate.evaluate_model import evaluate_model


def evaluate(
    model: str, recipe: Recipe, baseline: str | None = None, details: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """What `stfit eval --json` prints, and the metrics to show first. `details`: file (jsonl) to write each row to."""
    if details is not None:
        require_output(details, [*paths_of_model(Path(model)), *paths_in(recipe)])
    evaluation = evaluate_model(model, recipe, baseline, details is not None)
    if details is not None and is_rank_zero():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in evaluation.details)
        atomic_write(details, "".join(lines))
    result: dict[str, Any] = {"model": model_in(model), "metrics": evaluation.metrics}
    if evaluation.slices:
        result["slices"] = evaluation.slices
    if recipe.gate:
        result |= {"gate": [vars(gate) for gate in evaluation.gates]} | gate_error(evaluation.gates)
    if baseline is not None:
        moved = {"moved": evaluation.moved} if evaluation.moved else {}
        result["compare"] = {"model": model_in(baseline), "metrics": evaluation.comparison, **moved}
    if details is not None:
        result["details"] = str(details)
    return result, evaluation.main
