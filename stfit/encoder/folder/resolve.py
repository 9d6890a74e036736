"""Where a base model's files are: a local folder, or the Hub's cache after fetching them."""

from __future__ import annotations

from pathlib import Path

from stfit.encoder.folder.st_config import model_folder
from stfit.errors import ModelError
from stfit.hub.download import fetch, find_commit

SMALL_FILES = ["*.json"]
"""Enough to check a recipe."""
ALL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""Enough to build the encoder: never a pickle, never code."""


def is_on_hub(base: str) -> bool:
    """Whether a base is fetched from the Hub. What a command line names may be a folder without `./`."""
    return not Path(base).is_absolute() and not Path(base).is_dir()


def locate(base: str, revision: str | None, files: list[str]) -> Path:
    """Folder with those files of a model.

    Raises ModelError where it is no model folder, HubError where the Hub does not give them.
    """
    found = fetch("model", base, find_commit("model", base, revision), files) if is_on_hub(base) else Path(base)
    return model_folder(found)


def model_in(path: str) -> str:
    """The model folder that a user means by a run folder, a model folder or a Hub id.

    Raises ModelError for a name in a folder of this machine that has nothing of that name: asking the Hub for
    `runs/typo` would only take longer to fail. A run that is named without its folder is no Hub id either.
    """
    named, run = Path(path), Path("runs") / path
    if not named.exists() and named.parent.name and named.parent.is_dir():
        raise ModelError(f"{path}: there is no such run or model folder in {named.parent}")
    if not named.exists() and (run / "model").is_dir():
        raise ModelError(f"{path}: there is no such folder here. Write {run}, if you mean that run")
    inner = Path(path) / "model"
    return str(inner) if (inner / "modules.json").is_file() else path
