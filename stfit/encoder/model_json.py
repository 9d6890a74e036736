"""What the small JSON files of a model folder say, for the encoder built from it and for a glance without torch.

Nothing is executed: a module's class path is only ever looked up by its last part.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from stfit.encoder.settings import PEER_POOLINGS, Similarity
from stfit.errors import ModelError
from stfit.installed import installed

AFTER_POOLING = ("Dense", "Normalize", "LayerNorm", "Dropout")
"""Modules after pooling that stfit reads."""

POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
    "last_token": "pooling_mode_lasttoken",
}
"""Our mode -> sentence-transformers' flag, in the order in which it concatenates the modes whose flags are set."""

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
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: can't be read as JSON: {error}") from error


def is_sentence_model(folder: Path) -> bool:
    """Whether the folder says how to pool, or is a plain transformer checkpoint."""
    return (folder / "modules.json").is_file()


def model_folder(path: Path) -> Path:
    """The model folder that a path means: itself, or `model/` in a run folder.

    Raises ModelError where neither is one.
    """
    inner = path / "model"
    folder = inner if is_sentence_model(inner) else path
    if (folder / "config.json").is_file() or is_sentence_model(folder):
        return folder
    if not path.is_dir():
        raise ModelError(f"{path} does not exist")
    is_run = (path / "resolved.yaml").is_file()
    why = "its run has not finished yet" if is_run else "it has neither config.json nor modules.json"
    raise ModelError(f"{path}: is no model folder ({why})")


def read_modules(folder: Path) -> list[tuple[str, Path]]:
    """Class name and folder of every module of a sentence-transformers model, in order.

    Raises ModelError for modules that stfit does not have, and for paths that lead outside the folder.
    """
    listed = folder / "modules.json"
    entries = read_json(listed)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{listed}: is not a list of modules")
    ordered = sorted(entries, key=lambda entry: int(entry.get("idx", 0)))
    modules = [(kind_of(entry, listed), inside(folder, entry.get("path", ""), listed)) for entry in ordered]
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelError(
            f"{folder}: starts with {' then '.join(kinds[:2])}; stfit reads a Transformer followed by a Pooling"
        )
    return modules


def kind_of(entry: dict[str, Any], listed: Path) -> str:
    """Last part of a module's class path, when it is one that stfit knows."""
    path = str(entry.get("type", ""))
    kind = path.rpartition(".")[2]
    known = ("Transformer", "Pooling", *AFTER_POOLING)
    if not path.startswith("sentence_transformers.") or kind not in known:
        raise ModelError(f"{listed}: module `{path}` is not one that stfit reads ({', '.join(known)})")
    return kind


def inside(folder: Path, relative: str, listed: Path) -> Path:
    """A path named in modules.json, which must stay inside the model folder."""
    pure = PurePosixPath(str(relative))
    if not isinstance(relative, str) or pure.is_absolute() or ".." in pure.parts or {"\\", "\0"} & set(relative):
        raise ModelError(f"{listed}: path `{relative}` leads outside the model folder")
    return folder / pure


def read_pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    """Modes in order, and whether prompts are pooled; older versions have a flag for each mode."""
    config = read_json(folder / "config.json")
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [PEER_POOLINGS.get(mode, mode) for mode in ([named] if isinstance(named, str) else named)]
    else:
        modes = [mode for mode, flag in POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    unknown = [mode for mode in modes if mode not in POOLING_FLAGS and mode not in installed("pooling")]
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
