"""Train sentence-embedding models from YAML recipes.

The commands as Python functions; `import stfit` is fast, since heavy packages are imported on first use::

    from stfit import load, train

    result = train("recipe.yaml")
    embeddings = load(result["model"]).encode(["a text", "another"])
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - pip refuses it, but not who starts stfit from a clone
    sys.stderr.write("stfit needs Python 3.11 or newer, and this is {}.{}\n".format(*sys.version_info))
    sys.exit(9)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from datasets import Dataset, DatasetDict
    from pandas import DataFrame

    from stfit.encoder.encoder import Encoder

__all__ = ["load", "train"]


def train(
    recipe: str | Path,
    data: Dataset | DatasetDict | DataFrame | Sequence[dict[str, Any]] | None = None,
    overrides: Sequence[str] = (),
    *,
    runs: str | Path = "runs",
    fresh: bool = False,
) -> dict[str, Any]:
    """Train a recipe to the end, or resume its run, and return what `stfit train --json` prints.

    `data` replaces the recipe's `data.dataset`: a Dataset, a DataFrame (pandas, polars), an Arrow table or a list of
    rows also replaces its `split`, and of a DatasetDict the recipe chooses the split. `overrides` are those of the
    command line: `["train.epochs=1"]`. Raises the errors of stfit.errors, and TypeError for arguments of other types.
    """
    from stfit.commands.api import train_recipe

    return train_recipe(recipe, data, overrides, runs, fresh)


def load(model: str | Path, device: str = "auto") -> Encoder:
    """Load the encoder of a run folder, a model folder or a Hub id: `load("runs/qqp").encode(texts)`.

    Raises ModelError if the model can't be loaded, HubError if it can't be downloaded.
    """
    from stfit.encoder.build import load_encoder
    from stfit.encoder.folder.resolve import model_in
    from stfit.encoder.inputs import require_type
    from stfit.runtime.device import choose_device

    require_type("model", model, str | os.PathLike)
    require_type("device", device, str)
    return load_encoder(model_in(str(model)), choose_device(device))
