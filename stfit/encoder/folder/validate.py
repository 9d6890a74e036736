"""Whether the files of a model folder can be believed: looked at before anything is built from what they say."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stfit.encoder.folder.st_config import read_json
from stfit.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_JSON = 200 * 2**20
"""Bytes. Tokenizers of a quarter of a million words take 35 MB."""
LARGEST_HEADER = 100 * 2**20
"""Bytes of the JSON that a safetensors file starts with; the format's own limit."""
LAYERS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer", "num_decoder_layers")
COMPUTED = ("position_ids", "inv_freq")
"""Tables that older checkpoints hold, and today's code computes."""

Shapes = dict[str, tuple[int, ...]]


@contextmanager
def wrap_errors(folder: Path) -> Iterator[None]:
    """What goes wrong where the files of a folder say what nobody thought of, as a ModelError."""
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ModelError(f"{folder}: what its files say can't be used: {type(error).__name__}: {error}") from error


def validate_folder(folder: Path) -> None:
    """Raise ModelError for a folder that leads out of itself, or says things that can't be true.

    A link may lead anywhere within the Hub's cache, which is made of them: large files lie beside the repositories.
    """
    root = (folder.parents[2] if folder.parent.name == "snapshots" else folder).resolve()
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise ModelError(f"{path}: is a link that leads out of the model folder")
        if path.suffix == ".json" and path.is_file():
            _validate_json(path)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder}: holds an adapter for another model, not a model: merge it into its base first")


def _validate_json(path: Path) -> None:
    """The same for one of its JSON files."""
    if path.stat().st_size > LARGEST_JSON:
        raise ModelError(f"{path}: is larger than {LARGEST_JSON >> 20} MiB")
    if path.name.endswith(".index.json"):
        shards = read_json(path).get("weight_map", {})
        if outside := sorted({str(name) for name in shards.values() if Path(str(name)).name != name}):
            raise ModelError(f"{path}: names {outside[0]}, which is no file beside it")
    if path.name == "config.json":
        config = read_json(path)
        if not isinstance(config, dict):
            raise ModelError(f"{path}: is no JSON object")
        if "/" in str(config.get("_attn_implementation", config.get("attn_implementation", ""))):
            raise ModelError(f"{path}: asks for attention code from the Hub, which is not run")
        layers = max((config[key] for key in LAYERS if isinstance(config.get(key), int)), default=0)
        tensors = len(read_shapes(path.parent)) if "model_type" in config else 0  # other modules count another's layers
        if tensors and layers > tensors:
            raise ModelError(f"{path}: says {layers} layers, and there are weights for {tensors} tensors only")


def read_shapes(folder: Path) -> Shapes:
    """Shape of every tensor in a folder's safetensors files; nothing of a file whose start can't be read.

    https://github.com/huggingface/safetensors#format
    """
    found: Shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size)) if size <= LARGEST_HEADER else {}
            found |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
            continue  # loading will say what is wrong with it
    return found


def require_right_weights(backbone: nn.Module, loading: dict[str, Any], folder: Path) -> None:
    """Raise ModelError, with their names, for weights that are missing, left over or not finite.

    Left over may be the head of another task, and missing a pooler, which is not used.
    """
    parts = {name.partition(".")[0] for name in backbone.state_dict()}
    wrong = {
        "missing": [name for name in loading["missing_keys"] if not name.startswith("pooler.")],
        "in the file, and no part of this model": [
            name
            for name in loading["unexpected_keys"]
            if name.partition(".")[0] in parts and not name.startswith("pooler.") and not name.endswith(COMPUTED)
        ],
        "not finite": not_finite(backbone.state_dict().items()),
    }
    if any(wrong.values()):
        listed = "; ".join(f"{what}: {name_some(names)}" for what, names in wrong.items() if names)
        raise ModelError(f"{folder}: its weights are not those of its config: {listed}")


def require_vectors(words: list[str], vectors: int, folder: Path) -> None:
    """Raise ModelError for a tokenizer with tokens that the table has no vector for."""
    if len(words) > vectors:
        raise ModelError(
            f"{folder}: its tokenizer has {len(words)} tokens, up to `{words[-1]}`, and its table {vectors} vectors: "
            "they are not of one model"
        )


def require_no_code(config: dict[str, Any], folder: Path, known: Container[str]) -> None:
    """Raise ModelError for a checkpoint whose architecture is code that it brings along.

    `known`: architectures that transformers has itself; it then takes its own code, and not that of the checkpoint.
    """
    kind = config.get("model_type")
    if config.get("auto_map") and kind not in known:
        raise ModelError(
            f"{folder}: its architecture ({kind}) is code in its repository, which stfit never runs, and transformers "
            "does not have it: choose another base, or a version of this one that transformers knows"
        )


def other_shapes(meant: dict[str, Tensor], folder: Path, prefix: str) -> str:
    """The weights in a folder that have another shape than `meant`, and both shapes.

    In a checkpoint that has a head, their names start with `prefix`.
    """
    found = read_shapes(folder)
    wrong = []
    for name, tensor in meant.items():
        shape = found.get(name, found.get(f"{prefix}.{name}"))
        if shape is not None and shape != tuple(tensor.shape):
            wrong.append(f"{name} {list(shape)} instead of {list(tensor.shape)}")
    return name_some(wrong)


def not_finite(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the weights that hold a NaN or an infinity."""
    return [name for name, weight in weights if weight.is_floating_point() and not weight.isfinite().all()]


def name_some(names: Iterable[str]) -> str:
    """The first names of many."""
    ordered = sorted(names)
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")
