"""What is known of a base from its small files, before its weights are downloaded and without importing torch."""

from dataclasses import replace
from pathlib import Path

from stfit.encoder.bases.registry import KINDS
from stfit.encoder.bases.transformer import inspect_transformer
from stfit.encoder.config import Model
from stfit.encoder.folder.files import read_json
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.folder.resolve import SMALL_FILES, is_st_model, locate
from stfit.encoder.folder.st_config import read_folder
from stfit.encoder.folder.validate import validate_folder, wrap_errors

HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
TRACES = ("1_Pooling", "2_Dense", "2_Normalize", "config_sentence_transformers.json")
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
    """What of a folder is not used because it has no modules.json."""
    if is_st_model(folder):
        return None
    config = read_json(folder / "config.json", {})
    heads = [str(name) for name in config.get("architectures") or [] if str(name).endswith(HEADS)]
    if heads:
        return f"it is a {heads[0]}, whose head is dropped"
    traces = [name for name in TRACES if (folder / name).exists()]
    return f"it has {', '.join(traces)}, but no modules.json, without which they are not read" if traces else None
