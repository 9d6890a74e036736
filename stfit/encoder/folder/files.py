"""The file formats of a model folder: JSON and safetensors, and the pickles of older models."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from stfit.errors import ModelError
from stfit.io.json_files import load_json
from stfit.lazy import Tensor, lazy, nn, torch

if TYPE_CHECKING:
    from safetensors import torch as safetensors_torch
else:
    safetensors_torch = lazy("safetensors.torch")

log = logging.getLogger("stfit")

MAX_HEADER_BYTES = 100 * 2**20
WRAPPERS = ("module.", "_orig_mod.", "model.")


def read_json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file, or `default`, if given, when there is no file. Raises ModelError if it is damaged."""
    if default is not None and not path.is_file():
        return default
    try:
        return load_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON: {error}") from error


def read_header(path: Path) -> dict[str, Any]:
    """Tensor name -> its entry in the header of a safetensors file (https://github.com/huggingface/safetensors#format).

    Raises ModelError if the header is damaged, or describes more or less than the file holds.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length) if length <= min(size, MAX_HEADER_BYTES) else b"")
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        described = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if described == size:
            with safe_open(path, "np"):  # checks types, shapes and offsets, and reads no values
                pass
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        MemoryError,
    ) as error:
        raise ModelError(f"{path}: damaged: its header can't be read") from error
    if described != size:
        raise ModelError(f"{path}: damaged: has {size} bytes, but its header describes {described}")
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The files with a model's weights, chosen as transformers does: others of the same kind may lie beside them."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            files = read_json(index).get("weight_map") or {}
            return sorted({folder / str(file) for file in files.values()})
    return []


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, of undamaged safetensors files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        with suppress(ModelError, OSError, KeyError, TypeError):  # loading the file reports what is wrong with it
            shapes |= (
                {}
                if path.suffix == ".bin"
                else {name: tuple(entry["shape"]) for name, entry in read_header(path).items()}
            )
    return shapes


def count_parameters(folder: Path) -> int | None:
    shapes = read_shapes(folder)
    return sum(map(prod, shapes.values())) if shapes else None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of a folder's model.safetensors or, if it has none, of its pytorch_model.bin, without wrappers' prefixes.

    Raises ModelError if there is neither, or if it is damaged or holds a NaN or an infinity.
    """
    path = folder / "model.safetensors"
    if path.is_file():
        try:
            weights = safetensors_torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: damaged: {error}") from error
    elif pickles(folder):
        weights = read_pickled_weights(folder)
    else:
        raise ModelError(f"{path}: missing")
    if invalid := not_finite(weights.items()):
        raise ModelError(f"{path}: values that are not finite: {name_some(invalid)}")
    prefix = wrapper_prefix(weights)
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


def pickles(folder: Path) -> list[Path]:
    """The files of a model that was saved without safetensors, as older ones are."""
    return [path for path in weight_files(folder) if path.suffix == ".bin"]


def read_pickled_weights(folder: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Tensors of pytorch_model.bin, or of its parts: torch reads tensors alone, and runs no code of the file.

    On the device `meta`, they have shapes and no values.
    """
    weights: dict[str, Tensor] = {}
    for path in pickles(folder):
        log.info("%s: read without running code (torch.load with weights_only)", path)
        try:
            content = torch.load(path, map_location=device, weights_only=True)
            weights |= {str(name): tensor for name, tensor in content.items()}
        except Exception as error:  # pickle and torch raise anything
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ModelError(
                f"{path}: {reason}. stfit reads nothing but tensors from a pickle, since anything else in it can run "
                "code: convert it to safetensors on a machine that holds nothing of value"
            ) from error
    if wrong := [name for name, tensor in weights.items() if not isinstance(tensor, torch.Tensor)]:
        raise ModelError(f"{folder}: pytorch_model.bin holds more than tensors: {name_some(wrong)}")
    return weights


def wrapper_prefix(names: Iterable[str], own: str = "") -> str:
    """What DataParallel, torch.compile or a module `model` put before all names; `own` belongs to the model itself."""
    names, prefix = list(names), ""
    while names:
        wrapper = next((w for w in WRAPPERS if w != own and all(name.startswith(prefix + w) for name in names)), None)
        if wrapper is None:
            break
        prefix += wrapper
    return prefix


def load_weights(module: nn.Module, folder: Path) -> None:
    if not module.state_dict():
        return
    try:
        module.load_state_dict(read_weights(folder))
    except RuntimeError as error:
        raise ModelError(f"{folder}: its weights don't fit: {error}") from error


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    safetensors_torch.save_file(weights, folder / "model.safetensors")


def not_finite(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    return [name for name, weight in weights if weight.is_floating_point() and not _is_finite(weight)]


def _is_finite(weight: Tensor) -> bool:
    # The least and the largest value are NaN if one value is. `weight.isfinite()` needs another copy of the weight.
    return weight.numel() == 0 or bool(torch.stack(torch.aminmax(weight)).isfinite().all())


def name_some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")
