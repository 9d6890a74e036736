"""Resumable state on disk: whole or absent, never a pickle.

A checkpoint is an atomically renamed folder. Its manifest, written last, lists the hashes of the other files; a
checkpoint that does not match its manifest is ignored.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stfit.distributed import all_gather_object, barrier, is_rank_zero, on_rank_zero, rank
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.files import name_some, weights_of
from stfit.encoder.lora import adapted_linears
from stfit.errors import ModelError, ResourceError
from stfit.io.atomic import atomic_directory, discard, sync, temporary_path, wrap_os_errors
from stfit.io.hashing import hash_file
from stfit.io.json_files import load_json
from stfit.runtime.run_folder import list_checkpoints, put_aside_damaged
from stfit.training.adamw import AdamW
from stfit.training.fsdp import is_sharded, local_part, shard_like
from stfit.training.gradients import trained_weights
from stfit.training.loop import TrainObjects, require_finite_weights, trainable_modules
from stfit.training.rng import capture_all_rng, restore_all_rng

log = logging.getLogger("stfit")

MANIFEST = "manifest.json"
FILES = ("weights.safetensors", "optimizer.safetensors", "randomness.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    facts: dict[str, Any]
    """JSON data that the caller stored with the state."""


def save_checkpoint(folder: Path, objects: TrainObjects, facts: Mapping[str, Any]) -> None:
    """Write the training state to `folder`, replacing a damaged checkpoint of that name. A collective operation.

    Rank 0 writes all but the optimizer shards of the other ranks. Raises DivergedError if a weight is not finite.
    """
    random_states = {
        f"{number}.{name}": state
        for number, states in enumerate(all_gather_object(capture_all_rng()))
        for name, state in states.items()
    }
    with objects.full_encoder() as encoder:
        modules = trainable_modules(encoder, objects.losses)
        require_finite_weights(*modules)
        shared = on_rank_zero(lambda: temporary_path(folder))
        with atomic_directory(folder) if is_rank_zero() else nullcontext(shared) as temporary:
            if is_rank_zero():
                save_file(_clone_tied(_checkpoint_weights(modules)), temporary / "weights.safetensors")
                save_file(_flatten_optimizer(objects.optimizer), temporary / "optimizer.safetensors")
                save_file(random_states, temporary / "randomness.safetensors")
                state = {"facts": dict(facts), "scaler": objects.scaler.state_dict()}
                (temporary / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
            if objects.unsharded is not None:
                _save_optimizer_shards(temporary, objects.optimizer)
            if is_rank_zero():
                write_manifest(temporary)


def _save_optimizer_shards(folder: Path, optimizer: AdamW) -> None:
    """Save the optimizer shards of the other ranks, between two barriers: rank 0 creates and commits the folder."""
    barrier()
    if not is_rank_zero():
        path = folder / f"optimizer.{rank()}.safetensors"
        with wrap_os_errors(path):
            save_file(_flatten_optimizer(optimizer, sharded_only=True), path)
            sync(path)
    barrier()


def _checkpoint_weights(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": tensor
        for index, module in enumerate(modules)
        for name, tensor in weights_of(module).items()
        if name not in frozen_by_lora(module)
    }


def frozen_by_lora(module: nn.Module) -> set[str]:
    """Names of the base's weights if LoRA adapters are trained instead of them; checkpoints leave them out."""
    if not isinstance(module, Encoder) or not adapted_linears(module.backbone):
        return set()
    weights = module.backbone.named_parameters()
    return {f"backbone.{name}" for name, weight in weights if not weight.requires_grad}


def _load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    current = module.state_dict()
    sharded = {name: shard_like(tensor, current.get(name, tensor)) for name, tensor in weights.items()}
    missing, unknown = module.load_state_dict(sharded, strict=False)
    if wrong := [*(set(missing) - frozen_by_lora(module)), *unknown]:
        raise RuntimeError(f"missing or unknown weights: {name_some(wrong)}")


def _clone_tied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses two names for the same memory.
    seen: set[int] = set()
    result = {}
    for name, tensor in weights.items():
        result[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return result


def _flatten_optimizer(optimizer: AdamW, sharded_only: bool = False) -> dict[str, Tensor]:
    """Local tensors of the optimizer state, named `<weight>.<name>`; `sharded_only`: none that all ranks hold."""
    return {
        f"{number}.{name}": local_part(tensor).detach().cpu().contiguous()
        for number, weight in enumerate(optimizer.weights)
        for name, tensor in optimizer.state.get(weight, {}).items()
        if not sharded_only or is_sharded(tensor)
    }


def write_manifest(folder: Path) -> None:
    hashes = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=2), encoding="utf-8")


def verify_checkpoint(folder: Path) -> str | None:
    """Why a checkpoint is invalid; None if it holds exactly the files of its manifest, undamaged."""
    try:
        hashes = load_json(folder / MANIFEST)
        names = {path.name for path in folder.iterdir()}
        if {*hashes, MANIFEST} != names or not names >= set(FILES):
            return f"holds {', '.join(sorted(names))}, which differs from its {MANIFEST}"
        for name, expected in hashes.items():
            if hash_file(folder / name) != expected:
                return f"{name} is damaged"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"can't be read: {error}"
    return None


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest valid checkpoint in `folder`; newer ones that are damaged are put aside, which is logged."""
    for candidate in list_checkpoints(folder):
        problem = verify_checkpoint(candidate)
        if problem is None:
            return Checkpoint(candidate, load_json(candidate / "state.json")["facts"])
        put_aside_damaged(candidate, f"skipped, {problem}")
    return None


def checkpoint_path(folder: Path, step: int) -> Path:
    """Folder of the checkpoint after `step`; names sort by step."""
    return folder / f"step-{step:08d}"


def delete_old_checkpoints(folder: Path, keep: int) -> None:
    """Keep the newest `keep` checkpoints. Raises ResourceError, and deletes nothing, if the newest one is damaged."""
    newest, *older = list_checkpoints(folder)
    if problem := verify_checkpoint(newest):
        raise ResourceError(f"{newest}: was just written, but {problem}; check the disk")
    for old in older[keep - 1 :]:
        with wrap_os_errors(old):
            discard(old)


def require_disk_space(folder: Path, objects: TrainObjects, keep: int) -> None:
    weights = sum(weight.nbytes for module in objects.modules for weight in module.state_dict().values())
    moments = 2 * sum(weight.nbytes for _, weight in trained_weights(*objects.modules))
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = (keep + 1) * (weights + moments) + 2 * weights - used  # a new one is written before the old is deleted
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{folder}: {keep} checkpoints and the model need {needed >> 20} MiB, but only {free >> 20} MiB are free; "
            "lower train.keep_checkpoints, or choose another folder with --runs"
        )


def restore_checkpoint(checkpoint: Checkpoint, objects: TrainObjects) -> None:
    """Restore weights, optimizer and random state. Raises ModelError if the weights are those of another model."""
    folder = checkpoint.folder
    weights = load_file(folder / "weights.safetensors")
    try:
        for index, module in enumerate(objects.modules):
            _load_weights(module, _strip_prefix(weights, index))
        _load_optimizer(folder, objects.optimizer)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(f"{folder}: its weights do not fit this model; did the base change? {error}") from error
    objects.scaler.load_state_dict(load_json(folder / "state.json")["scaler"])
    if states := _strip_prefix(load_file(folder / "randomness.safetensors"), rank()):
        restore_all_rng(states)  # a rank that the checkpointed run did not have keeps its fresh generators


def _load_optimizer(folder: Path, optimizer: AdamW) -> None:
    weights = optimizer.weights
    optimizer.state.clear()
    for key, tensor in _read_optimizer(folder):
        number, _, name = key.partition(".")
        weight = weights[int(number)]
        placed = tensor.to(weight.device)
        optimizer.state.setdefault(weight, {})[name] = shard_like(placed, weight if tensor.ndim else tensor)


def _read_optimizer(folder: Path) -> Iterator[tuple[str, Tensor]]:
    shards = sorted(folder.glob("optimizer.*.safetensors"), key=lambda path: int(path.name.split(".")[1]))
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, "pt")) for path in (folder / "optimizer.safetensors", *shards)]
        names = [file.keys() for file in files]
        for name in names[0]:
            parts = [file.get_tensor(name) for file, held in zip(files, names, strict=True) if name in held]
            yield name, torch.cat(parts) if len(parts) > 1 else parts[0]


def _strip_prefix(tensors: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
