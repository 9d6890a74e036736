"""The JSON files of a sentence-transformers model, as versions 2 to 6 write them.

Nothing is executed: of a module's class path, only the last part is looked up.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import ValidationError

from stfit.encoder.bases.registry import KINDS
from stfit.encoder.folder.files import read_json
from stfit.encoder.folder.model_config import ModelConfig
from stfit.encoder.folder.resolve import is_model2vec
from stfit.encoder.layers import Layer, Normalize
from stfit.encoder.pooling import POOLINGS, ST_POOLINGS
from stfit.encoder.prompts import BUILT_IN, with_built_in
from stfit.encoder.token_layers import TokenLayer
from stfit.errors import ModelError
from stfit.plugins import installed_entry_points
from stfit.similarity import SIMILARITIES
from stfit.spec import union_members

TOKEN_LAYERS: dict[str, type[TokenLayer]] = {choice.aliases[0]: choice for choice in union_members(TokenLayer)}
LAYERS: dict[str, type[Layer]] = {choice.aliases[0]: choice for choice in union_members(Layer)}
"""Module -> the choice of a recipe; before and after pooling."""

ASYMMETRIC = "has different modules for queries and for documents; stfit embeds all texts with the same modules"
MAX_SIZE = 10**6
"""Largest number in the config of a layer: it is built before its weights are read."""
SPARSE = "makes sparse embeddings over a vocabulary; stfit makes dense ones"
UNSUPPORTED = {
    "Router": ASYMMETRIC,
    "Asym": ASYMMETRIC,
    "CLIPModel": "embeds images too; stfit embeds only text",
    "MLMTransformer": SPARSE,
    "SpladePooling": SPARSE,
    "SparseAutoEncoder": SPARSE,
    "SparseStaticEmbedding": SPARSE,
}


@dataclass(frozen=True)
class ModelFolder:
    st_name: str
    backbone_folder: Path
    config: ModelConfig
    token_layer_folders: list[Path]
    layer_folders: list[Path]


def read_folder(folder: Path) -> ModelFolder:
    """Raises ModelError for modules that stfit does not have, and for paths that lead out of the folder."""
    modules_file = folder / "modules.json"
    if not modules_file.is_file() and is_model2vec(folder):
        unit: list[Layer] = [Normalize()] if read_json(folder / "config.json").get("normalize") else []
        return ModelFolder("StaticEmbedding", folder, ModelConfig((), layers=unit), [], [folder] * len(unit))
    entries = read_json(modules_file)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{modules_file}: is not a list of modules")
    if len({entry.get("name", number) for number, entry in enumerate(entries)}) < len(entries):
        raise ModelError(f"{modules_file}: two modules have the same name, and sentence-transformers drops one of them")
    modules = [(_module_name(entry, modules_file), _module_folder(folder, entry, modules_file)) for entry in entries]
    (st_name, backbone_folder), *rest = modules
    if st_name not in KINDS:
        raise ModelError(
            f"{modules_file}: starts with {st_name}; stfit only supports models that start with {', '.join(KINDS)}"
        )
    modes: tuple[str, ...] = ()
    include_prompt, before = True, []
    if "pooling" not in KINDS[st_name].unsupported_keys:
        place = next((place for place, (name, _) in enumerate(rest) if name == "Pooling"), None)
        if place is None:
            raise ModelError(f"{modules_file}: has no Pooling after {st_name}")
        before, (_, pooling), rest = rest[:place], rest[place], rest[place + 1 :]
        modes, include_prompt = _read_pooling(pooling)
    token_layers = [_read_layer(TOKEN_LAYERS, name, path, modules_file) for name, path in before]
    layers = [_read_layer(LAYERS, name, path, modules_file) for name, path in rest]
    config = ModelConfig(modes, token_layers, layers, include_prompt, **_read_settings(folder))
    return ModelFolder(st_name, backbone_folder, config, [path for _, path in before], [path for _, path in rest])


def _module_name(entry: dict[str, Any], modules_file: Path) -> str:
    path = str(entry.get("type", ""))
    name = path.rpartition(".")[2]
    known = (*KINDS, *TOKEN_LAYERS, "Pooling", *LAYERS)
    if path.startswith("sentence_transformers.") and name in UNSUPPORTED:
        raise ModelError(f"{modules_file}: stfit does not support {name}, which {UNSUPPORTED[name]}")
    if not path.startswith("sentence_transformers.") or name not in known:
        raise ModelError(f"{modules_file}: module `{path}` is not supported, only {', '.join(known)}")
    return name


def _module_folder(folder: Path, entry: dict[str, Any], modules_file: Path) -> Path:
    relative = entry.get("path", "")
    pure = PurePosixPath(str(relative).replace("\\", "/"))  # Windows writes 1_Pooling\
    is_absolute = pure.is_absolute() or PureWindowsPath(pure).drive
    if not isinstance(relative, str) or is_absolute or ".." in pure.parts or "\0" in relative:
        raise ModelError(f"{modules_file}: path `{relative}` is outside the model folder")
    return folder / pure


def _read_layer(known: dict[str, Any], name: str, folder: Path, modules_file: Path) -> Any:
    if name not in known:
        raise ModelError(f"{modules_file}: {name} is not possible at this position, only {', '.join(known)}")
    path = folder / known[name].config_file
    config, usual = read_json(path, {}), "sentence_embedding" if known is LAYERS else "token_embeddings"
    features = {config.get(key) or usual for key in ("module_input_name", "module_output_name")}
    if large := {key: value for key, value in config.items() if isinstance(value, int) and value > MAX_SIZE}:
        raise ModelError(
            f"{path}: {', '.join(f'{key} is {value}' for key, value in large.items())}: no layer is so large"
        )
    if features != {usual}:
        raise ModelError(f"{path}: a {name} on {', '.join(sorted(features - {usual}))} is not supported")
    try:
        return known[name].from_st(config)
    except KeyError as error:
        raise ModelError(f"{path}: {error} is missing") from error
    except (ValidationError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: {error}") from error


def _read_pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    """Modes in order, and whether prompts are pooled; versions before 5 have one flag per mode."""
    config = read_json(folder / "config.json")
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [ST_POOLINGS.get(mode, mode) for mode in ([named] if isinstance(named, str) else named)]
    else:
        modes = [mode for mode, pooling in POOLINGS.items() if config.get(pooling.st_flag)] or ["mean"]
    if not modes:
        raise ModelError(f"{folder / 'config.json'}: has no pooling mode")
    unknown = [mode for mode in modes if mode not in POOLINGS and mode not in installed_entry_points("pooling")]
    if unknown:
        raise ModelError(f"{folder / 'config.json'}: unknown pooling {', '.join(map(str, unknown))}")
    return tuple(modes), bool(config.get("include_prompt", True))


def pooling_config(config: ModelConfig, token_dim: int) -> dict[str, Any]:
    """The config.json of Pooling: flags, which every version reads, and `pooling_mode` for any order but theirs."""
    content: dict[str, Any] = {"word_embedding_dimension": token_dim}
    flags = {mode: pooling.st_flag for mode, pooling in POOLINGS.items() if pooling.st_flag}
    content |= {flag: mode in config.pooling for mode, flag in flags.items()}
    content["include_prompt"] = config.include_prompt
    in_flag_order = tuple(mode for mode in flags if mode in config.pooling)
    if in_flag_order != config.pooling:
        st_names = {mode: st_name for st_name, mode in ST_POOLINGS.items()}
        content["pooling_mode"] = [st_names.get(mode, mode) for mode in config.pooling]
    return content


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / "config_sentence_transformers.json"
    content = read_json(path, {})
    prompts = {name: text or "" for name, text in (content.get("prompts") or {}).items()}
    default_prompt = content.get("default_prompt_name")
    if default_prompt is not None and default_prompt not in with_built_in(prompts):
        raise ModelError(f"{path}: default_prompt_name `{default_prompt}` is not one of its prompts")
    similarity = content.get("similarity_fn_name")
    return {
        "prompts": prompts,
        "default_prompt": default_prompt,
        "similarity": similarity if similarity in SIMILARITIES else "cosine",
        "truncate_dim": _read_truncate_dim(content, path),
    }


def _read_truncate_dim(content: dict[str, Any], path: Path) -> int | None:
    dim = content.get("truncate_dim")
    if dim is None or (isinstance(dim, int) and dim > 0):
        return dim
    raise ModelError(f"{path}: truncate_dim is {dim!r}; it must be a positive number, or null")


def st_settings(config: ModelConfig) -> dict[str, Any]:
    """The version is the oldest that knows every key here, so that no version of sentence-transformers warns."""
    import torch
    import transformers

    settings: dict[str, Any] = {
        "__version__": {
            "sentence_transformers": "3.0.0",
            "transformers": transformers.__version__,
            "pytorch": torch.__version__,
        },
        "model_type": "SentenceTransformer",
        # Versions before 5 have no built-in prompts, and refuse a default that is not listed.
        "prompts": {name: text for name, text in BUILT_IN.items() if name == config.default_prompt} | config.prompts,
        "default_prompt_name": config.default_prompt,
        "similarity_fn_name": config.similarity,
    }
    return settings | ({"truncate_dim": config.truncate_dim} if config.truncate_dim is not None else {})
