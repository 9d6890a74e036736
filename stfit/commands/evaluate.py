"""`stfit eval`: run a recipe's evaluators on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stfit.commands.prepare import prepare_evaluation
from stfit.commands.train import choose_device
from stfit.encoder.build import load_encoder
from stfit.errors import ModelError, RecipeError
from stfit.evaluation.measure import main_metrics, measure
from stfit.recipe.recipe import Recipe


def model_in(path: str) -> str:
    """The model folder that a user means by a run folder, a model folder or a Hub id.

    Raises ModelError for a name in a folder of this machine that has nothing of that name: asking the Hub for
    `runs/typo` would only take longer to fail.
    """
    named = Path(path)
    if not named.exists() and named.parent.name and named.parent.is_dir():
        raise ModelError(f"{path}: there is no such run or model folder in {named.parent}")
    inner = Path(path) / "model"
    return str(inner) if (inner / "modules.json").is_file() else path


def evaluate(model: str, recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """What `stfit eval --json` prints, and the metrics worth showing first."""
    if not recipe.eval:
        raise RecipeError("the recipe has no `eval:` list, so there is nothing to measure")
    evaluators = prepare_evaluation(recipe)
    encoder = load_encoder(model_in(model), choose_device(recipe.train.device))
    metrics = measure(encoder, evaluators, "end")
    return {"model": model_in(model), "metrics": metrics}, main_metrics(evaluators, encoder.traits.similarity)
