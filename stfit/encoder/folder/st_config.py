"""What the small JSON files of a model folder say, for the encoder built from it and for a glance without torch.

Nothing is executed: a module's class path is only ever looked up by its last part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from pydantic import ValidationError

from stfit.encoder.layers import Layer
from stfit.encoder.pooling import POOLINGS, ST_POOLINGS
from stfit.encoder.token_layers import TokenLayer
from stfit.errors import ModelError
from stfit.io.json_files import load_json
from stfit.plugins import installed_entry_points
from stfit.similarity import Similarity
from stfit.spec import union_members

SOURCES = {"Transformer": False, "WordEmbeddings": False, "StaticEmbedding": True, "BoW": True}
"""First modules that stfit reads -> whether they give the embedding themselves, so that nothing is pooled."""

TOKEN_LAYERS: dict[str, type[TokenLayer]] = {choice.aliases[0]: choice for choice in union_members(TokenLayer)}  # type: ignore[misc]
LAYERS: dict[str, type[Layer]] = {choice.aliases[0]: choice for choice in union_members(Layer)}  # type: ignore[misc]
"""Module -> what a recipe calls it; before and after pooling."""

ASYMMETRIC = "has modules of its own for queries and for documents, where stfit embeds all texts with the same"
SPARSE = "makes sparse embeddings over a vocabulary, where stfit makes dense ones"
UNSUPPORTED = {
    "Router": ASYMMETRIC,
    "Asym": ASYMMETRIC,
    "CLIPModel": "embeds images too, where stfit embeds text alone",
    "MLMTransformer": SPARSE,
    "SpladePooling": SPARSE,
    "SparseAutoEncoder": SPARSE,
    "SparseStaticEmbedding": SPARSE,
}
"""Modules of sentence-transformers that stfit does not have -> why."""

TRANSFORMER_CONFIGS = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
"""Where sentence-transformers keeps max_seq_length; the names after the first are of its 0.x versions."""

ROBERTA_KIN = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "roberta-prelayernorm",
    "longformer",
    "data2vec-text",
    "ibert",
)
"""Model types that number positions from pad_token_id + 1, so that their table is that much longer than a text."""


def read_json(path: Path, default: Any = None) -> Any:
    """What a file holds; `default`, if one is given, where there is no file.

    Raises ModelError where it is damaged, or missing without a default.
    """
    if default is not None and not path.is_file():
        return default
    try:
        return load_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON: {error}") from error


def is_st_model(folder: Path) -> bool:
    """Whether the folder says how to pool, or is a plain transformer checkpoint."""
    return (folder / "modules.json").is_file()


def model_folder(path: Path) -> Path:
    """The model folder that a path means: itself, or `model/` in a run folder.

    Raises ModelError where neither is one.
    """
    inner = path / "model"
    folder = inner if is_st_model(inner) else path
    if (folder / "config.json").is_file() or is_st_model(folder):
        return folder
    if not path.is_dir():
        raise ModelError(f"{path} does not exist")
    is_run = (path / "resolved.yaml").is_file()
    why = "its run has not finished yet" if is_run else "it has neither config.json nor modules.json"
    raise ModelError(f"{path}: is no model folder ({why})")


@dataclass
class ModelConfig:
    """What a model folder says besides its weights."""

    pooling: tuple[str, ...]
    """Modes; none where what comes first gives the embedding itself."""
    token_layers: list[TokenLayer] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    include_prompt: bool = True
    """Whether the prompt's tokens are pooled too."""
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str = "cosine"
    truncate_dim: int | None = None

    def pooled_dim(self, dim: int) -> int:
        """Size of an embedding before the layers, where token embeddings of size `dim` come in."""
        for token_layer in self.token_layers:
            dim = token_layer.dim_after(dim)
        return dim * max(1, len(self.pooling))

    def embedding_dim(self, dim: int) -> int:
        """Size of an embedding, where token embeddings of size `dim` come in."""
        dim = self.pooled_dim(dim)
        for layer in self.layers:
            dim = layer.dim_after(dim)
        return dim

    def modules(self) -> list[str]:
        """What comes after the first module, in sentence-transformers' words."""
        pooling = [f"Pooling ({', '.join(self.pooling)})"] if self.pooling else []
        before, after = ([layer.aliases[0] for layer in layers] for layers in (self.token_layers, self.layers))
        return [*before, *pooling, *after]


@dataclass(frozen=True)
class ModelFolder:
    """A model folder, read: what comes first, where it lies, what follows, and where the weights of that lie."""

    source: str
    folder: Path
    config: ModelConfig
    token_layer_folders: list[Path]
    layer_folders: list[Path]


def read_folder(folder: Path) -> ModelFolder:
    """Read what a sentence-transformers folder of any version says.

    Raises ModelError for modules that stfit does not have, and for paths that lead outside the folder.
    """
    listed = folder / "modules.json"
    entries = read_json(listed)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{listed}: is not a list of modules")
    ordered = sorted(entries, key=lambda entry: int(entry.get("idx", 0)))
    modules = [(_kind_of(entry, listed), _inside(folder, entry.get("path", ""), listed)) for entry in ordered]
    (source, source_folder), *rest = modules
    if source not in SOURCES:
        raise ModelError(f"{listed}: starts with {source}; stfit reads models that start with {', '.join(SOURCES)}")
    modes: tuple[str, ...] = ()
    include_prompt, before = True, []
    if not SOURCES[source]:
        place = next((place for place, (kind, _) in enumerate(rest) if kind == "Pooling"), None)
        if place is None:
            raise ModelError(f"{listed}: has no Pooling after {source}")
        before, (_, pooling), rest = rest[:place], rest[place], rest[place + 1 :]
        modes, include_prompt = _read_pooling(pooling)
    token_layers = [_read_layer(TOKEN_LAYERS, kind, path, listed) for kind, path in before]
    layers = [_read_layer(LAYERS, kind, path, listed) for kind, path in rest]
    traits = ModelConfig(modes, token_layers, layers, include_prompt, **read_settings(folder))
    return ModelFolder(source, source_folder, traits, [path for _, path in before], [path for _, path in rest])


def _kind_of(entry: dict[str, Any], listed: Path) -> str:
    """Last part of a module's class path, when it is one that stfit knows."""
    path = str(entry.get("type", ""))
    kind = path.rpartition(".")[2]
    known = (*SOURCES, *TOKEN_LAYERS, "Pooling", *LAYERS)
    if path.startswith("sentence_transformers.") and kind in UNSUPPORTED:
        raise ModelError(f"{listed}: stfit can't read {kind}, which {UNSUPPORTED[kind]}")
    if not path.startswith("sentence_transformers.") or kind not in known:
        raise ModelError(f"{listed}: module `{path}` is not one that stfit reads ({', '.join(known)})")
    return kind


def _read_layer(known: dict[str, Any], kind: str, folder: Path, listed: Path) -> Any:
    """One module before or after pooling, as a recipe would write it."""
    if kind not in known:
        raise ModelError(f"{listed}: {kind} stands where only {', '.join(known)} can")
    path = folder / known[kind].config_file
    try:
        return known[kind].from_peer(read_json(path, {}))
    except KeyError as error:
        raise ModelError(f"{path}: can't be used: {error} is missing") from error
    except (ValidationError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: can't be used: {error}") from error


def _inside(folder: Path, relative: str, listed: Path) -> Path:
    """A path named in modules.json, which must stay inside the model folder."""
    pure = PurePosixPath(str(relative))
    if not isinstance(relative, str) or pure.is_absolute() or ".." in pure.parts or {"\\", "\0"} & set(relative):
        raise ModelError(f"{listed}: path `{relative}` leads outside the model folder")
    return folder / pure


def _read_pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    """Modes in order, and whether prompts are pooled; older versions have a flag for each mode."""
    config = read_json(folder / "config.json")
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [ST_POOLINGS.get(mode, mode) for mode in ([named] if isinstance(named, str) else named)]
    else:
        modes = [mode for mode, pooling in POOLINGS.items() if config.get(pooling.st_flag)] or ["mean"]
    unknown = [mode for mode in modes if mode not in POOLINGS and mode not in installed_entry_points("pooling")]
    if unknown:
        raise ModelError(f"{folder / 'config.json'}: unknown pooling {', '.join(map(str, unknown))}")
    return tuple(modes), bool(config.get("include_prompt", True))


def read_settings(folder: Path) -> dict[str, Any]:
    """`prompts`, `default_prompt`, `similarity` and `truncate_dim` of a sentence-transformers model."""
    path = folder / "config_sentence_transformers.json"
    config = read_json(path, {})
    prompts = {name: text for name, text in (config.get("prompts") or {}).items() if text}
    default_prompt = config.get("default_prompt_name")
    if default_prompt is not None and default_prompt not in (config.get("prompts") or {}):
        raise ModelError(f"{path}: default_prompt_name `{default_prompt}` is not one of its prompts")
    similarity = config.get("similarity_fn_name")
    return {
        "prompts": prompts,
        "default_prompt": default_prompt if default_prompt in prompts else None,  # an empty prompt changes nothing
        "similarity": similarity if similarity in get_args(Similarity) else "cosine",
        "truncate_dim": config.get("truncate_dim"),
    }


def read_sentence_config(transformer: Path) -> dict[str, Any]:
    """`max_seq_length` and `do_lower_case` of a Transformer module, under the name its version gave the file."""
    found = (read_json(transformer / name, {}) for name in TRANSFORMER_CONFIGS)
    config: dict[str, Any] = next((config for config in found if config), {})
    return config


def count_positions(config: dict[str, Any]) -> int | None:
    """Longest sequence that the position table of a transformer's config holds; None where there is no such table."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions <= 0:
        return None
    padding = config.get("pad_token_id", 1) or 0
    return positions - (padding + 1 if config.get("model_type") in ROBERTA_KIN else 0)
