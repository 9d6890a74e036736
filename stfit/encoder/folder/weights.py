"""Weights of a module, to and from safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stfit.encoder.folder.validate import name_some, not_finite
from stfit.errors import ModelError


def weights_of(module: nn.Module) -> dict[str, Any]:
    """Every weight by name, contiguous and on the CPU, ready to be written."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; a pickle is refused by name."""
    if not path.is_file():
        pickled = path.with_name("pytorch_model.bin")
        more = f" (`{pickled.name}` is a pickle, which stfit never opens)" if pickled.exists() else ""
        raise ModelError(f"{path}: missing{more}")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: damaged: {error}") from error
    if broken := not_finite(weights.items()):
        raise ModelError(f"{path}: not finite: {name_some(broken)}")
    return weights


def load_weights(module: nn.Module, folder: Path) -> None:
    """Fill a module, if it has weights, with those in its folder."""
    if not module.state_dict():
        return
    try:
        module.load_state_dict(read_weights(folder / "model.safetensors"))
    except RuntimeError as error:
        raise ModelError(f"{folder}: its weights don't fit: {error}") from error
