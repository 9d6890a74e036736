"""`from stfit import load, train`: commands as Python functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from stfit.commands.train import Finished, train
from stfit.data.cache.datasets import cache_dataset
from stfit.io.yaml_text import to_inline_yaml
from stfit.recipe.load import load_recipe


def train_recipe(
    recipe: str | Path, data: Dataset | DatasetDict | None, overrides: Sequence[str], runs: str | Path, fresh: bool
) -> dict[str, Any]:
    loaded = load_recipe(Path(recipe), [*overrides, *_dataset_overrides(data)])
    finished = [event for event in train(loaded, Path(runs), fresh=fresh) if isinstance(event, Finished)]
    return finished[-1].result


def _dataset_overrides(data: Dataset | DatasetDict | None) -> list[str]:
    """Overrides that make a recipe read `data` from a copy on disk, where a resumed run finds it."""
    if data is None:
        return []
    hub_keys = [f"data.{key}=null" for key in ("config", "files", "revision")]
    if isinstance(data, DatasetDict):
        return [f"data.dataset={to_inline_yaml(str(cache_dataset(data)))}", *hub_keys]
    return [*_dataset_overrides(DatasetDict(train=data)), "data.split=train"]
