"""`stfit check`: what train does before it loads a model, without torch."""

from __future__ import annotations

from typing import Any

from stfit.commands.prepare import prepare
from stfit.recipe.recipe import Recipe


def check(recipe: Recipe) -> dict[str, Any]:
    """Load and check all data of a recipe; the rows it would train on, and three of them as the model will see them.

    Raises what `prepare` raises.
    """
    training = prepare(recipe).training
    samples = [{role: texts[row] for role, texts in training.texts.items()} for row in range(min(3, len(training)))]
    return {
        "errors": [],
        "warnings": [],
        "rows": len(training),
        "dropped": training.dropped,
        "samples": samples,
    }
