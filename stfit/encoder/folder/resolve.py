"""The local folder of a base model, downloaded from the Hub if needed."""

from pathlib import Path

from stfit.errors import ModelError
from stfit.hub.download import download_files, find_commit

SMALL_FILES = ["*.json"]
"""Enough to check a recipe."""
ALL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""Enough to build the encoder: never a pickle, never code."""


def is_on_hub(base: str) -> bool:
    """Whether a base is downloaded from the Hub. On the command line, a folder may be named without `./`."""
    return not Path(base).is_absolute() and not Path(base).is_dir()


def locate(base: str, revision: str | None, files: list[str]) -> Path:
    """The folder of a model, with those of its files that match `files`. Raises ModelError or HubError."""
    return model_folder(
        download_files("model", base, find_commit("model", base, revision), files) if is_on_hub(base) else Path(base)
    )


def is_st_model(folder: Path) -> bool:
    return (folder / "modules.json").is_file()


def model_folder(path: Path) -> Path:
    """`path` itself, or `model/` in it if `path` is a run folder. Raises ModelError if neither is a model folder."""
    inner = path / "model"
    folder = inner if is_st_model(inner) else path
    if (folder / "config.json").is_file() or is_st_model(folder):
        return folder
    if not path.is_dir():
        raise ModelError(f"{path} does not exist")
    is_run = (path / "resolved.yaml").is_file()
    reason = "its run has not finished yet" if is_run else "it has neither config.json nor modules.json"
    raise ModelError(f"{path}: is not a model folder ({reason})")


def model_in(path: str) -> str:
    """The model that a command line names: of a run folder its `model/`, else `path` itself, a folder or a Hub id.

    Raises ModelError instead of asking the Hub for a missing path whose parent folder exists, such as `runs/typo`, and
    for a run that is named without `runs/`.
    """
    named, run = Path(path), Path("runs") / path
    if not named.exists() and named.parent.name and named.parent.is_dir():
        raise ModelError(f"{path}: there is no such run or model folder in {named.parent}")
    if not named.exists() and (run / "model").is_dir():
        raise ModelError(f"{path}: no such folder. Did you mean {run}?")
    inner = named / "model"
    return str(inner) if is_st_model(inner) else path
