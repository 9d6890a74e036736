"""The local folder of a base model, downloaded from the Hub if needed."""

import re
from pathlib import Path, PurePosixPath

from stfit.encoder.folder.files import read_json
from stfit.errors import ModelError
from stfit.hub.download import download_files, find_commit, list_files
from stfit.io.display import shorten
from stfit.io.json_files import load_json_object
from stfit.runtime.run_folder import RunFolder, find_damage

SMALL_FILES = ["*.json"]
"""Enough to check a recipe."""
ALL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""Enough to build the encoder, never code; a pickle only of a module that has nothing else."""


ST_MODEL = "SentenceTransformer"
PICKLE = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
ADAPTER = "adapter_config.json"
MODEL_FILES = ("modules.json", "config.json", ADAPTER)
"""One of them tells what a folder holds."""


def is_on_hub(base: str) -> bool:
    """Whether a base is downloaded from the Hub. On the command line, a folder may be named without `./`."""
    return not Path(base).is_absolute() and not Path(base).is_dir()


def is_local(base: str) -> bool:
    """Whether all files of a base are in local folders, those of the base of an adapter too."""
    if is_on_hub(base):
        return False
    adapter = model_folder(Path(base)) / ADAPTER
    return not adapter.is_file() or is_local(str(read_json(adapter).get("base_model_name_or_path")))


def locate(base: str, revision: str | None, files: list[str]) -> Path:
    """The folder of a model, with those of its files that match `files`. Raises ModelError or HubError."""
    if not is_on_hub(base):
        return model_folder(Path(base))
    commit = find_commit("model", base, revision)
    paths = list_files("model", base, commit)
    if not {*MODEL_FILES} & {*paths}:
        raise ModelError(f"the model `{base}` on the Hub has none of the files {', '.join(MODEL_FILES)}")
    if files is ALL_FILES:
        files = [*files, *_lone_pickles(paths)]
    return model_folder(download_files("model", base, commit, files))


def _lone_pickles(paths: list[str]) -> list[str]:
    """The pytorch_model.bin files of folders without safetensors."""
    safe = {PurePosixPath(path).parent for path in paths if path.endswith(".safetensors")}
    pickled = [PurePosixPath(path) for path in paths if PICKLE.fullmatch(PurePosixPath(path).name)]
    return [str(path) for path in pickled if path.parent not in safe]


def is_st_model(folder: Path) -> bool:
    """Whether its modules.json counts: sentence-transformers ignores that of a cross-encoder or a sparse encoder."""
    settings = load_json_object(folder / "config_sentence_transformers.json") or {}  # reading the model names damage
    kind = settings.get("model_type", ST_MODEL)
    return ((folder / "modules.json").is_file() and kind == ST_MODEL) or is_model2vec(folder)


def is_model2vec(folder: Path) -> bool:
    return read_json(folder / "config.json", {}).get("model_type") == "model2vec"


def locate_adapter_base(folder: Path, files: list[str]) -> Path | None:
    """The folder of the model that an adapter in `folder` belongs to; None without an adapter."""
    path = folder / ADAPTER
    if not path.is_file():
        return None
    content = read_json(path)
    base, revision = content.get("base_model_name_or_path"), content.get("revision")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{path}: does not name the base of the adapter (base_model_name_or_path)")
    return locate(base, revision, files)


def model_folder(path: Path) -> Path:
    """`path` itself, or `model/` in it if `path` is a run folder. Raises ModelError if neither is a model folder."""
    folder = inner_model(path)
    if any((folder / name).is_file() for name in MODEL_FILES):
        return folder
    if not path.is_dir():
        raise ModelError(f"{path} does not exist")
    is_run = (path / "resolved.yaml").is_file()
    reason = "its run has not finished yet" if is_run else "it has neither config.json nor modules.json"
    raise ModelError(f"{path}: is not a model folder ({reason})")


def model_in(path: str) -> str:
    """The model that a command line names: of a run folder its `model/`, else `path` itself, a folder or a Hub id.

    Raises ModelError instead of asking the Hub for a missing path whose parent folder exists, such as `runs/typo`, for
    a run that is named without `runs/`, and for a model that is not the one its run has written.
    """
    named, run = Path(path), Path("runs") / path
    try:
        exists = named.exists()
    except OSError as error:  # a name that is too long
        raise ModelError(f"{shorten(path, 80)}: {error.strerror}") from error
    if not exists and named.parent.name and named.parent.is_dir():
        raise ModelError(f"{path}: there is no such run or model folder in {named.parent}")
    if not exists and (run / "model").is_dir():
        raise ModelError(f"{path}: no such folder. Did you mean {run}?")
    return str(_require_undamaged(inner_model(named))) if named.is_dir() else path


def _require_undamaged(folder: Path) -> Path:
    """`folder` again. Raises ModelError if a finished run wrote it and a file differs from its digest."""
    run = RunFolder(folder.absolute().parent)
    written = (load_json_object(run.result) or {}) if folder.name == run.model.name else {}
    if damage := find_damage(run, written.get("weights", {})):
        raise ModelError(f"{damage}: run its `stfit train` again, which writes the model from the newest checkpoint")
    return folder


def paths_of_model(path: Path) -> list[Path]:
    """What an output must not replace: the model that a command line names, and what its run wrote beside it."""
    folder = inner_model(path)
    run = RunFolder(folder.absolute().parent)
    return [folder, *(run.written if run.resolved.is_file() else [])]


def inner_model(path: Path) -> Path:
    """Of a run folder its `model/`, else `path` itself."""
    inner = path / "model"
    return inner if is_st_model(inner) else path
