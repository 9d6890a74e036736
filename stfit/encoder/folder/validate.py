"""Checks of the files in a model folder, before anything is built from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stfit.encoder.folder.files import name_some, not_finite, read_header, read_json, read_shapes, weight_files
from stfit.encoder.tokenizer import FileTokenizer, Tokenizer
from stfit.errors import ModelError
from stfit.lazy import nn

MAX_JSON_BYTES = 200 * 2**20
"""A tokenizer.json with 250,000 tokens takes 35 MB."""
LFS_POINTER = b"version https://git-lfs"
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer", "num_decoder_layers")
MAX_EXCESS = 0.01
"""Share of tokens without a vector that a base of its own tokenizer may have."""
OTHER_POSITIONS = ("esm", "granitemoehybrid")
"""Model types of transformers 5 that act on `position_embedding_type`."""
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
        if path.suffix in (".json", ".safetensors", ".bin", ".model", ".txt") and path.is_file():
            with path.open("rb") as file:
                if file.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise ModelError(f"{path}: is a pointer of Git LFS, not the file: fetch it with `git lfs pull`")
        if path.suffix == ".safetensors" and path.is_file():
            read_header(path)
        if path.suffix == ".json" and path.is_file():
            _validate_json(path)


def _validate_json(path: Path) -> None:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ModelError(f"{path}: is larger than {MAX_JSON_BYTES >> 20} MiB")
    if path.name.endswith(".index.json"):
        shards = read_json(path).get("weight_map", {})
        if outside := sorted({str(name) for name in shards.values() if Path(str(name)).name != name}):
            raise ModelError(f"{path}: names {outside[0]}, which is not in the same folder")
    if path.name in ("config.json", "tokenizer_config.json"):
        _validate_config(path, read_json(path))


def _validate_config(path: Path, config: Any) -> None:
    if not isinstance(config, dict):
        raise ModelError(f"{path}: is not a JSON object")
    if code := config.get("auto_map"):
        names = ", ".join(sorted(map(str, code))) if isinstance(code, dict) else code
        raise ModelError(
            f"{path}: {names} of `auto_map` is code in a repository, which stfit never runs. What transformers has by "
            "the same name may be something else: choose another base, or a version of it without `auto_map`"
        )
    if "/" in str(config.get("_attn_implementation", config.get("attn_implementation", ""))):
        raise ModelError(f"{path}: requests attention code from the Hub, which stfit does not run")
    if method := next((config[key] for key in ("quantization_config", "quantization") if config.get(key)), None):
        name = method.get("quant_method", f"{method.get('bits', '?')} bits") if isinstance(method, dict) else method
        raise ModelError(
            f"{path}: its weights are quantized ({name}), which stfit does not read: use the base they are of"
        )
    positions, model_type = config.get("position_embedding_type"), config.get("model_type")
    if positions not in (None, "absolute") and model_type not in OTHER_POSITIONS:
        raise ModelError(
            f"{path}: sets position_embedding_type: {positions}, which the {model_type} model of transformers does not "
            "have: its embeddings would be those of another model. Choose a base that transformers supports"
        )
    # Configs without `model_type`, such as WeightedLayerPooling's, count the layers of another module.
    if path.name == "config.json" and "model_type" in config:
        _validate_weights(path.parent, config)


def _validate_weights(folder: Path, config: dict[str, Any]) -> None:
    layers = max((config[key] for key in LAYER_COUNTS if isinstance(config.get(key), int)), default=0)
    tensors = len(read_shapes(folder))
    if tensors and layers > tensors:
        raise ModelError(f"{folder / 'config.json'}: declares {layers} layers, but there are only {tensors} weights")


def require_weights(folder: Path) -> None:
    """Raise ModelError if a folder of a transformer has no weights; of a base on the Hub, they may come later."""
    if "snapshots" in folder.parts or weight_files(folder):
        return
    others = " It has ONNX graphs, which can't be trained." if any(folder.rglob("*.onnx")) else ""
    raise ModelError(f"{folder}: has no weights (model.safetensors).{others}")


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
    """Raise ModelError if the tokenizer has many more tokens than the table has vectors.

    Some bases have a few more, for example for images: only texts that use these are refused.
    """
    vocabulary = tokenizer.vocabulary()
    excess = len(vocabulary) - num_vectors
    if excess > 0 and isinstance(tokenizer, FileTokenizer) and excess <= MAX_EXCESS * num_vectors:
        tokenizer.num_vectors = num_vectors
    elif excess > 0:
        raise ModelError(
            f"{folder}: its tokenizer has {len(vocabulary)} tokens, up to `{vocabulary[-1]}`, but its table has "
            f"{num_vectors} vectors: they belong to different models"
        )
