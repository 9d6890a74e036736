"""Train sentence-embedding models from YAML recipes.

From Python as from the command line; importing this costs nothing, the functions load what they need::

    from stfit import load, train

    result = train("recipe.yaml")
    embeddings = load(result["model"]).encode(["a text", "another"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from datasets import Dataset, DatasetDict

    from stfit.encoder.encoder import Encoder

__all__ = ["load", "train"]


def train(
    recipe: str | Path,
    data: Dataset | DatasetDict | None = None,
    overrides: Sequence[str] = (),
    *,
    runs: str | Path = "runs",
    fresh: bool = False,
) -> dict[str, Any]:
    """Train a recipe to its end, or go on with its run, and give what `stfit train --json` prints.

    `data` is trained on in place of the recipe's `data.dataset`: a Dataset takes the place of its split too, of a
    DatasetDict the recipe picks the split. `overrides` as on the command line: `["train.epochs=1"]`. Raises the errors
    of stfit.errors.
    """
    from stfit.commands.api import train_recipe

    return train_recipe(recipe, data, overrides, runs, fresh)


def load(model: str | Path, device: str = "auto") -> Encoder:
    """The encoder in a run folder, in a model folder, or of a Hub id: `load("runs/qqp").encode(texts)`.

    Raises ModelError where it can't serve, HubError where it can't be fetched.
    """
    from stfit.commands.api import load_model

    return load_model(model, device)
