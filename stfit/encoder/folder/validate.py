"""Checks of the files in a model folder, before anything is built from them."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stfit.encoder.folder.files import name_some, not_finite, read_json, read_shapes
from stfit.encoder.tokenizer import Tokenizer
from stfit.errors import ModelError
from stfit.lazy import nn

MAX_JSON_BYTES = 200 * 2**20
"""A tokenizer.json with 250,000 tokens takes 35 MB."""
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer", "num_decoder_layers")
COMPUTED = ("position_ids", "inv_freq")
"""Buffers that old checkpoints hold and current models compute."""


@contextmanager
def wrap_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ModelError(f"{folder}: its files can't be interpreted: {type(error).__name__}: {error}") from error


def validate_folder(folder: Path) -> None:
    """Raise ModelError for links that lead out of the folder (or the Hub's cache), and for impossible JSON files."""
    root = (folder.parents[2] if folder.parent.name == "snapshots" else folder).resolve()
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise ModelError(f"{path}: is a link to a file outside the model folder")
        if path.suffix == ".json" and path.is_file():
            _validate_json(path)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder}: contains an adapter instead of a model: merge it into its base first")


def _validate_json(path: Path) -> None:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ModelError(f"{path}: is larger than {MAX_JSON_BYTES >> 20} MiB")
    if path.name.endswith(".index.json"):
        shards = read_json(path).get("weight_map", {})
        if outside := sorted({str(name) for name in shards.values() if Path(str(name)).name != name}):
            raise ModelError(f"{path}: names {outside[0]}, which is not in the same folder")
    if path.name == "config.json":
        config = read_json(path)
        if not isinstance(config, dict):
            raise ModelError(f"{path}: is not a JSON object")
        if "/" in str(config.get("_attn_implementation", config.get("attn_implementation", ""))):
            raise ModelError(f"{path}: requests attention code from the Hub, which stfit does not run")
        layers = max((config[key] for key in LAYER_COUNTS if isinstance(config.get(key), int)), default=0)
        # Configs without `model_type`, such as WeightedLayerPooling's, count the layers of another module.
        tensors = len(read_shapes(path.parent)) if "model_type" in config else 0
        if tensors and layers > tensors:
            raise ModelError(f"{path}: declares {layers} layers, but there are only {tensors} weights")


def require_right_weights(module: nn.Module, loading: dict[str, Any], folder: Path) -> None:
    """Raise ModelError, with their names, for weights that are missing, unexpected or not finite.

    `loading` is the loading info of transformers. The head of another task may be left over, and a pooler may be
    missing: neither is used.
    """
    parts = {name.partition(".")[0] for name in module.state_dict()}
    wrong = {
        "missing": [name for name in loading["missing_keys"] if not name.startswith("pooler.")],
        "in the file, but not part of this model": [
            name
            for name in loading["unexpected_keys"]
            if name.partition(".")[0] in parts and not name.startswith("pooler.") and not name.endswith(COMPUTED)
        ],
        "not finite": not_finite(module.state_dict().items()),
    }
    if any(wrong.values()):
        faults = "; ".join(f"{fault}: {name_some(names)}" for fault, names in wrong.items() if names)
        raise ModelError(f"{folder}: its weights do not match its config: {faults}")


def require_vectors(tokenizer: Tokenizer, num_vectors: int, folder: Path) -> None:
    vocabulary = tokenizer.vocabulary()
    if len(vocabulary) > num_vectors:
        raise ModelError(
            f"{folder}: its tokenizer has {len(vocabulary)} tokens, up to `{vocabulary[-1]}`, but its table has "
            f"{num_vectors} vectors: they belong to different models"
        )


def require_no_code(config: dict[str, Any], folder: Path, known: Container[str]) -> None:
    """Raise ModelError if the architecture is code in the folder; for `known` ones transformers uses its own code."""
    model_type = config.get("model_type")
    if config.get("auto_map") and model_type not in known:
        raise ModelError(
            f"{folder}: its architecture ({model_type}) is defined by code in its repository, which stfit never runs, "
            "and transformers does not have it: choose another base, or a version of it that transformers supports"
        )
