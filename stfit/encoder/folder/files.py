"""The two file formats of a model folder: JSON and safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from stfit.errors import ModelError
from stfit.io.json_files import load_json
from stfit.lazy import Tensor, lazy, nn

if TYPE_CHECKING:
    from safetensors import torch as safetensors_torch
else:
    safetensors_torch = lazy("safetensors.torch")

MAX_HEADER_BYTES = 100 * 2**20


def read_json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file, or `default`, if given, when there is no file. Raises ModelError if it is damaged."""
    if default is not None and not path.is_file():
        return default
    try:
        return load_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON: {error}") from error


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, of undamaged safetensors files (https://github.com/huggingface/safetensors#format)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size)) if size <= MAX_HEADER_BYTES else {}
            shapes |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
            continue  # loading the file reports what is wrong with it
    return shapes


def count_parameters(folder: Path) -> int | None:
    shapes = read_shapes(folder)
    return sum(map(prod, shapes.values())) if shapes else None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises ModelError if it is missing, damaged, or holds a NaN or an infinity."""
    if not path.is_file():
        pickled = path.with_name("pytorch_model.bin")
        hint = f" (`{pickled.name}` is a pickle, which stfit never opens)" if pickled.exists() else ""
        raise ModelError(f"{path}: missing{hint}")
    try:
        weights = safetensors_torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: damaged: {error}") from error
    if invalid := not_finite(weights.items()):
        raise ModelError(f"{path}: values that are not finite: {name_some(invalid)}")
    return weights


def load_weights(module: nn.Module, folder: Path) -> None:
    if not module.state_dict():
        return
    try:
        module.load_state_dict(read_weights(folder / "model.safetensors"))
    except RuntimeError as error:
        raise ModelError(f"{folder}: its weights don't fit: {error}") from error


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    safetensors_torch.save_file(weights, folder / "model.safetensors")


def not_finite(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    return [name for name, weight in weights if weight.is_floating_point() and not weight.isfinite().all()]


def name_some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")
