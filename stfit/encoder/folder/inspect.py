"""What is known of a base from its small files, before its weights are downloaded and without importing torch."""

import re
from dataclasses import replace
from pathlib import Path

from stfit.encoder.bases.registry import KINDS
from stfit.encoder.bases.transformer import inspect_transformer
from stfit.encoder.config import Model
from stfit.encoder.folder.files import read_json
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.folder.resolve import SMALL_FILES, ST_MODEL, is_st_model, locate, locate_adapter_base
from stfit.encoder.folder.st_config import read_folder
from stfit.encoder.folder.validate import validate_folder, wrap_errors
from stfit.errors import ModelError

PAIR_HEAD = "ForSequenceClassification"
HEADS = re.compile(r"For(\w*Classification|QuestionAnswering|MultipleChoice|\w*Ranking)$")
TRACES = re.compile(r"modules\.json|\d+_[A-Z]\w*|(sentence_\w+|config_sentence_transformers)(_config)?\.json")
"""Parts of a sentence-transformers model."""


def inspect_model(model: Model) -> ModelInfo:
    """The base of a recipe. Raises ModelError if it is missing or damaged, HubError if the Hub can't be reached."""
    if not isinstance(model.base, str):
        return model.base.inspect()
    return inspect_folder(locate(model.base, model.revision, SMALL_FILES))


def inspect_folder(folder: Path) -> ModelInfo:
    with wrap_errors(folder):
        validate_folder(folder)
        if not is_st_model(folder):
            return replace(inspect_transformer(folder), dropped=dropped_parts(folder))
        model = read_folder(folder)
        return replace(KINDS[model.st_name].inspect(model.backbone_folder), config=model.config)


def dropped_parts(folder: Path) -> str | None:
    """What of a folder is not used because it is no sentence-transformers model, or has lost its modules.json."""
    if is_st_model(folder):
        return None
    base = locate_adapter_base(folder, SMALL_FILES)
    if base is not None and is_st_model(base):
        return f"the base of the adapter, {base}, has a modules.json, but the adapter has none, so they are not read"
    named = read_json(folder / "config.json", {}).get("architectures") or []
    heads = [str(name) for name in ([named] if isinstance(named, str) else named) if HEADS.search(str(name))]
    if heads:
        return f"it is a {heads[0]}, whose head is dropped"
    kind = read_json(folder / "config_sentence_transformers.json", {}).get("model_type", ST_MODEL)
    if kind != ST_MODEL:
        return f"it is a {kind}, whose modules are not read"
    traces = sorted(path.name for path in folder.glob("*") if TRACES.fullmatch(path.name))
    return f"it has {', '.join(traces)}, but no modules.json, so its modules are not read" if traces else None


def require_cross_encoder(base: str, revision: str | None = None) -> None:
    """Raises ModelError unless the config of a model names a head with one output; reads no weights."""
    folder = locate(base, revision, SMALL_FILES)
    config = read_json(folder / "config.json", {})
    heads = [str(name) for name in config.get("architectures") or []]
    if not any(name.endswith(PAIR_HEAD) for name in heads):
        named = f"it is a {heads[0]}" if heads else "its config.json names no architecture"
        raise ModelError(f"{base} is no cross-encoder: {named}, and a cross-encoder is a ...{PAIR_HEAD}")
    outputs = len(config.get("id2label") or {}) or config.get("num_labels", 2)
    if outputs != 1:
        raise ModelError(f"{base} has {outputs} outputs for a pair of texts, and a reranker has one: its score")
