"""Resumable state on disk: whole or absent, never a pickle.

A checkpoint is written beside its final name, its manifest (hashes of the other files) last, flushed to the disk, and
only then renamed into place. What does not verify against its manifest does not exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stfit.encoder.encoder import weights_of
from stfit.errors import ResourceError
from stfit.training.loop import Learner
from stfit.training.randomness import capture_randomness, restore_randomness

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint."""

    folder: Path
    facts: dict[str, Any]
    """What the caller stored beside the state: step, best metric, fingerprints."""


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which afterwards takes the place of `folder`; a reader sees the old one or the new one.

    Raises ResourceError where something can't be written, and then leaves the old one.
    """
    scratch = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        yield scratch
        publish(scratch, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise ResourceError(f"{folder}: can't be written, what was there before is kept: {error}") from error


def publish(scratch: Path, folder: Path) -> None:
    """Give a finished folder its name, once it is on the disk; the one that had it before is gone only after."""
    for path in (*scratch.rglob("*"), scratch):
        sync(path)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_checkpoint(folder: Path, learner: Learner, facts: Mapping[str, Any]) -> None:
    """Write the state after a step to `folder`, in the place of a damaged one that may be there."""
    with replacing(folder) as scratch:
        weights = {
            f"{index}.{name}": tensor
            for index, module in enumerate(learner.modules)
            for name, tensor in weights_of(module).items()
        }
        save_file(unshared(weights), scratch / "weights.safetensors")
        save_file(flatten_optimizer(learner.optimizer), scratch / "optimizer.safetensors")
        save_file(capture_randomness(), scratch / "randomness.safetensors")
        state = {"facts": dict(facts), "scaler": learner.scaler.state_dict()}
        (scratch / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
        write_manifest(scratch)


def unshared(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights as copies: safetensors refuses two names for one memory."""
    seen: set[int] = set()
    result = {}
    for name, tensor in weights.items():
        result[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return result


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors of the optimizer's state, named `<weight>.<name>`; its settings follow from the recipe."""
    return {
        f"{weight}.{name}": tensor.detach().cpu().contiguous()
        for weight, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Name and hash of every other file."""
    hashes = {path.name: digest(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=2), encoding="utf-8")


def verify(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None when every file is what its manifest says."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in hashes.items():
            if digest(folder / name) != expected:
                return f"{name} is damaged"
    except (OSError, ValueError, AttributeError) as error:
        return f"can't be read: {error}"
    return None


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint under `folder` that verifies, and a line for each newer one that was skipped."""
    skipped: list[str] = []
    for candidate in checkpoints_in(folder):
        problem = verify(candidate)
        if problem is None:
            state = json.loads((candidate / "state.json").read_text(encoding="utf-8"))
            return Checkpoint(candidate, state["facts"]), skipped
        skipped.append(f"{candidate}: skipped, {problem}")
    return None, skipped


def checkpoints_in(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.suffix == ""), reverse=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` lies; names sort by step."""
    return folder / f"step-{step:08d}"


def rotate(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, once the newest verifies."""
    found = checkpoints_in(folder)
    if found and verify(found[0]) is None:
        for old in found[keep:]:
            shutil.rmtree(old)


def restore(checkpoint: Checkpoint, learner: Learner) -> None:
    """Put weights, optimizer and generators back where the checkpoint left them."""
    folder = checkpoint.folder
    weights = load_file(folder / "weights.safetensors")
    for index, module in enumerate(learner.modules):
        prefix = f"{index}."
        module.load_state_dict({name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)})
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    tensors: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / "optimizer.safetensors").items():
        weight, _, part = name.partition(".")
        tensors.setdefault(int(weight), {})[part] = tensor
    packed = learner.optimizer.state_dict()
    learner.optimizer.load_state_dict({"state": tensors, "param_groups": packed["param_groups"]})
    learner.scaler.load_state_dict(state["scaler"])
    restore_randomness(load_file(folder / "randomness.safetensors"))
