"""Resumable state on disk: whole or absent, never a pickle.

A checkpoint is written beside its final name, its manifest (hashes of the other files) last, flushed to the disk, and
only then renamed into place. What does not verify against its manifest does not exist.
"""

from __future__ import annotations

import hashlib
import json
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

from stfit.distributed import all_gather_object, broadcast_object, is_rank_zero, rank
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.validate import name_some
from stfit.encoder.folder.weights import weights_of
from stfit.encoder.lora import weights_of_the_base
from stfit.errors import ModelError, ResourceError
from stfit.io.atomic import atomic_directory, discard, scratch_of, sync, wrap_os_errors
from stfit.runtime.run_folder import list_checkpoints
from stfit.training.fsdp import is_sharded_tensor, shard_like, to_local
from stfit.training.gradients import trained_weights
from stfit.training.loop import TrainObjects, require_finite_weights, trainable_modules
from stfit.training.rng import capture_all_rng, restore_all_rng

MANIFEST = "manifest.json"
FILES = ("weights.safetensors", "optimizer.safetensors", "randomness.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint."""

    folder: Path
    facts: dict[str, Any]
    """What the caller stored beside the state: step, best metric, fingerprints."""


def save_checkpoint(folder: Path, learner: TrainObjects, facts: Mapping[str, Any]) -> None:
    """Write the state after a step to `folder`, in the place of a damaged one that may be there.

    All processes have the same state but for their generators, which the first one, who writes, gets from all, and for
    an optimizer that is cut up among them, of which each writes its part. Raises DivergedError for weights that are not
    finite, ResourceError where they can't be written.
    """
    randomness = {
        f"{number}.{name}": state
        for number, states in enumerate(all_gather_object(capture_all_rng()))
        for name, state in states.items()
    }
    with learner.full_encoder() as encoder:
        modules = trainable_modules(encoder, learner.losses)
        require_finite_weights(*modules)
        with atomic_directory(folder) if is_rank_zero() else nullcontext(scratch_of(folder)) as scratch:
            if is_rank_zero():
                save_file(_unshared(_kept_weights(modules)), scratch / "weights.safetensors")
                save_file(_flatten_optimizer(learner.optimizer), scratch / "optimizer.safetensors")
                save_file(randomness, scratch / "randomness.safetensors")
                state = {"facts": dict(facts), "scaler": learner.scaler.state_dict()}
                (scratch / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
            if learner.unsharded is not None:
                _add_parts(scratch, learner.optimizer)
            if is_rank_zero():
                write_manifest(scratch)


def _add_parts(scratch: Path, optimizer: torch.optim.Optimizer) -> None:
    """Have the other processes write their parts of the optimizer's state, once the first one has made the folder."""
    broadcast_object(None)
    if not is_rank_zero():
        path = scratch / f"optimizer.{rank()}.safetensors"
        with wrap_os_errors(path):
            save_file(_flatten_optimizer(optimizer, parts_only=True), path)
            sync(path)
    all_gather_object(None)


def _kept_weights(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The weights of all modules, but for what they leave to the base, named `<module>.<name>`."""
    return {
        f"{index}.{name}": tensor
        for index, module in enumerate(modules)
        for name, tensor in weights_of(module).items()
        if name not in frozen_by_lora(module)
    }


def frozen_by_lora(module: nn.Module) -> set[str]:
    """Weights that no checkpoint holds, since the base has them and adapters leave them alone."""
    return (
        {f"backbone.{name}" for name in weights_of_the_base(module.backbone)} if isinstance(module, Encoder) else set()
    )


def _load_all_but(module: nn.Module, left_out: set[str], weights: dict[str, Tensor]) -> None:
    """Fill a module; only what is `left_out` may be missing. Raises RuntimeError where the names are others."""
    missing, unknown = module.load_state_dict(weights, strict=False)
    if wrong := [*(set(missing) - left_out), *unknown]:
        raise RuntimeError(f"weights are missing or unknown: {name_some(wrong)}")


def _unshared(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights as copies: safetensors refuses two names for one memory."""
    seen: set[int] = set()
    result = {}
    for name, tensor in weights.items():
        result[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return result


def _flatten_optimizer(optimizer: torch.optim.Optimizer, parts_only: bool = False) -> dict[str, Tensor]:
    """Tensors of the optimizer's state, named `<weight>.<name>`; its settings follow from the recipe.

    Of those that are cut up, the part of this process. `parts_only` leaves out what all processes have.
    """
    return {
        f"{weight}.{name}": to_local(tensor).detach().cpu().contiguous()
        for weight, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
        if not parts_only or is_sharded_tensor(tensor)
    }


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Name and hash of every other file."""
    hashes = {path.name: digest(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=2), encoding="utf-8")


def verify_checkpoint(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None when it holds the files of its manifest, and nothing else."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = {path.name for path in folder.iterdir()}
        if {*hashes, MANIFEST} != found or not found >= set(FILES):
            return f"holds {', '.join(sorted(found))}, which is not what its {MANIFEST} says"
        for name, expected in hashes.items():
            if digest(folder / name) != expected:
                return f"{name} is damaged"
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"can't be read: {error}"
    return None


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint under `folder` that verifies, and a line for each newer one that was skipped."""
    skipped: list[str] = []
    for candidate in list_checkpoints(folder):
        problem = verify_checkpoint(candidate)
        if problem is None:
            state = json.loads((candidate / "state.json").read_text(encoding="utf-8"))
            return Checkpoint(candidate, state["facts"]), skipped
        skipped.append(f"{candidate}: skipped, {problem}")
    return None, skipped


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` lies; names sort by step."""
    return folder / f"step-{step:08d}"


def delete_old_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints.

    Raises ResourceError, and deletes none, where the newest is damaged.
    """
    newest, *older = list_checkpoints(folder)
    if problem := verify_checkpoint(newest):
        raise ResourceError(f"{newest}: was written, and now {problem}: can this disk be trusted?")
    for old in older[keep - 1 :]:
        with wrap_os_errors(old):
            discard(old)


def require_disk_space(folder: Path, learner: TrainObjects, keep: int) -> None:
    """Raise ResourceError where the disk has no room for the checkpoints and the models of a run."""
    weights = sum(weight.nbytes for module in learner.modules for weight in module.state_dict().values())
    moments = 2 * sum(weight.nbytes for _, weight in trained_weights(*learner.modules))
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = (keep + 1) * (weights + moments) + 2 * weights - there  # one more of each while it is replaced
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{folder}: {needed >> 20} MiB are needed for {keep} checkpoints and the model, {free >> 20} MiB are free; "
            "lower train.keep_checkpoints, or choose another folder with --runs"
        )


def restore_checkpoint(checkpoint: Checkpoint, learner: TrainObjects) -> None:
    """Put weights, optimizer and generators back where the checkpoint left them.

    Raises ModelError where they are not those of the learner's model.
    """
    folder = checkpoint.folder
    weights = load_file(folder / "weights.safetensors")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    try:
        for index, module in enumerate(learner.modules):
            own = module.state_dict()
            cut = {name: shard_like(tensor, own.get(name, tensor)) for name, tensor in _of_one(weights, index).items()}
            _load_all_but(module, frozen_by_lora(module), cut)
        moved = [weight for group in learner.optimizer.param_groups for weight in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _read_optimizer(folder):
            number, _, part = name.partition(".")
            weight = moved[int(number)]
            moments.setdefault(int(number), {})[part] = shard_like(tensor, weight if tensor.ndim else tensor)
        groups = learner.optimizer.state_dict()["param_groups"]
        learner.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(f"{folder}: its weights are not those of this model; did the base change? {error}") from error
    learner.scaler.load_state_dict(state["scaler"])
    if own := _of_one(load_file(folder / "randomness.safetensors"), rank()):
        restore_all_rng(own)  # else there were fewer processes, and this one's generators are new


def _read_optimizer(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the optimizer's state by name, one at a time, put together from the parts of all processes."""
    others = sorted(folder.glob("optimizer.*.safetensors"), key=lambda path: int(path.name.split(".")[1]))
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, "pt")) for path in (folder / "optimizer.safetensors", *others)]
        names = [file.keys() for file in files]
        for name in names[0]:
            parts = [file.get_tensor(name) for file, held in zip(files, names, strict=True) if name in held]
            yield name, torch.cat(parts) if len(parts) > 1 else parts[0]


def _of_one(tensors: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """Those named `<number>.<name>`, by name."""
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
