"""What is known of a base from its small files, before its weights are downloaded and without importing torch."""

from dataclasses import replace
from pathlib import Path

from stfit.encoder.bases.registry import KINDS
from stfit.encoder.bases.transformer import inspect_transformer
from stfit.encoder.config import Model
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.folder.resolve import SMALL_FILES, is_st_model, locate
from stfit.encoder.folder.st_config import read_folder
from stfit.encoder.folder.validate import validate_folder, wrap_errors


def inspect_model(model: Model) -> ModelInfo:
    """The base of a recipe. Raises ModelError if it is missing or damaged, HubError if the Hub can't be reached."""
    if not isinstance(model.base, str):
        return model.base.inspect()
    return inspect_folder(locate(model.base, model.revision, SMALL_FILES))


def inspect_folder(folder: Path) -> ModelInfo:
    with wrap_errors(folder):
        validate_folder(folder)
        if not is_st_model(folder):
            return inspect_transformer(folder)
        model = read_folder(folder)
        return replace(KINDS[model.st_name].inspect(model.backbone_folder), config=model.config)
