"""`from stfit import load, train`: the commands as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from stfit.commands.train import Finished, train
from stfit.data.cache.datasets import cache_dataset
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import model_in
from stfit.recipe.dump import to_inline_yaml
from stfit.recipe.load import load_recipe
from stfit.runtime.device import choose_device


def train_recipe(
    recipe: str | Path, data: Dataset | DatasetDict | None, overrides: Sequence[str], runs: str | Path, fresh: bool
) -> dict[str, Any]:
    """Train to the end; the result."""
    loaded = load_recipe(Path(recipe), [*overrides, *_in_place_of_dataset(data)])
    finished = [event for event in train(loaded, Path(runs), fresh=fresh) if isinstance(event, Finished)]
    return finished[-1].result


def _in_place_of_dataset(data: Dataset | DatasetDict | None) -> list[str]:
    """Overrides that make a recipe read `data`, which is kept on disk: a run has to find it again."""
    if data is None:
        return []
    of_the_hub = [f"data.{key}=null" for key in ("config", "files", "revision")]
    if isinstance(data, DatasetDict):
        return [f"data.dataset={to_inline_yaml(str(cache_dataset(data)))}", *of_the_hub]
    return [*_in_place_of_dataset(DatasetDict(train=data)), "data.split=train"]


def load_model(model: str | Path, device: str) -> Encoder:
    """The encoder that a user means."""
    return load_encoder(model_in(str(model)), choose_device(device))
