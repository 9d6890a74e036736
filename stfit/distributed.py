"""The processes of one run: which of them this is, and what they tell one another.

Every process draws the same batches and embeds its share of the texts; all get all embeddings, and compute the same
loss. Only the first one writes and prints. One process alone goes through the same functions, which then do nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from stfit.errors import WorkerLostError
from stfit.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import torch
    import torch.distributed as dist
    from torch import Tensor
else:
    np, torch, dist = lazy("numpy"), lazy("torch"), lazy("torch.distributed")

T = TypeVar("T")

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun, or whoever does as it does, puts into the environment of each process."""
TIMEOUT = timedelta(hours=6)
"""How long processes wait for one that is alive, and reads or tokenises. A dead one is noticed at once."""
BUCKET_BYTES = 2**25
"""Gradients that travel together."""
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def launched_world_size() -> int | None:
    """How many processes torchrun has started, of which this is one; None where it hasn't."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in LAUNCHED) else None


def is_initialized() -> bool:
    """Whether there is a group of processes; asks without loading torch."""
    return "torch.distributed" in sys.modules and dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """How many processes this run has."""
    return dist.get_world_size() if is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if is_initialized() else 0


def is_rank_zero() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """A block in which this process is one of those that torchrun has started; any other process is alone."""
    if launched_world_size() is None:
        yield
        return
    _die_with_parent()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # `cuda` is then a GPU of its own for each
    with translate_dist_errors():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    yield
    dist.destroy_process_group()  # not after an error: it could wait for those that have none


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM when torchrun is gone, however it went: no orphan goes on."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def write_error_file(name: str, message: str, exit_code: int) -> None:
    """Leave an error where torchrun looks for it, so that it is said once whichever process it comes from."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        said = {"message": message, "timestamp": int(time.time()), "class": name, "exit_code": exit_code}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(said, file)


@contextmanager
def translate_dist_errors(mixed: bool = False) -> Iterator[None]:
    """A block that waits for the other processes; PeerLost where one of them is gone.

    `mixed`: a block that does other things, too, and may fail in them.
    """
    try:
        yield
    except RuntimeError as error:  # gloo and NCCL say it in many ways
        if mixed and not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise WorkerLostError(f"another process of this run is gone: {str(error).splitlines()[0]}") from error


def broadcast_object(value: T) -> T:
    """The value that the first process has, in all."""
    if world_size() == 1:
        return value
    box = [value]
    with translate_dist_errors():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def on_rank_zero(action: Callable[[], T]) -> T:
    """What `action` gives, done by the first process alone; the others wait for it."""
    return broadcast_object(action() if is_rank_zero() else None)  # type: ignore[return-value]  # all get that of the first


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """A block that the first process goes through before the others, who then find its files in the cache."""
    if not is_rank_zero():
        broadcast_object(None)
    yield
    if is_rank_zero():
        broadcast_object(None)


def all_reduce_max(number: int) -> int:
    """The largest that a process has."""
    if world_size() == 1:
        return number
    box = torch.tensor([number])
    with translate_dist_errors():
        dist.all_reduce(box, dist.ReduceOp.MAX)
    return int(box.item())


def all_gather_object(value: T) -> list[T]:
    """The values of all processes, in their order."""
    if world_size() == 1:
        return [value]
    box: list[T | None] = [None] * world_size()
    with translate_dist_errors():
        dist.all_gather_object(box, value)
    return box  # type: ignore[return-value]  # all are there now


def barrier() -> None:
    """Until all processes are here."""
    all_gather_object(None)


def partition(sizes: Sequence[int]) -> list[np.ndarray]:
    """Which of some things each process takes, ascending: about as many each, of about the same total size."""
    longest_first = np.argsort(-np.asarray(sizes, dtype=np.int64), kind="stable")
    return [np.sort(longest_first[first :: world_size()]) for first in range(world_size())]


def all_gather_rows(own_sd: Tensor, shares: list[np.ndarray]) -> Tensor:
    """Rows of all processes, each at its place; `own_sd` are this one's, in the order of its share.

    Gradients reach the own rows. That is all of them: every process computes the same loss, each for its own rows.
    """
    most = max(map(len, shares))
    if world_size() == 1 or not most:
        return own_sd
    padded = own_sd.new_zeros(most, own_sd.shape[1])
    padded[: len(own_sd)] = own_sd.detach()
    gathered = own_sd.new_empty(world_size() * most, own_sd.shape[1])
    with translate_dist_errors():
        dist.all_gather(list(gathered.split(most)), padded)
    place = np.concatenate([number * most + np.arange(len(share)) for number, share in enumerate(shares)])
    order = np.argsort(np.concatenate(shares))
    whole_sd = gathered[torch.from_numpy(place[order]).to(own_sd.device)]
    return whole_sd.index_copy(0, torch.from_numpy(shares[rank()]).to(own_sd.device), own_sd)


def all_gather_numpy(own_rd: np.ndarray, shares: list[np.ndarray]) -> np.ndarray:
    """The same for embeddings that nothing is learnt from."""
    return own_rd if world_size() == 1 else all_gather_rows(torch.from_numpy(own_rd), shares).numpy()


def broadcast_tensors(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if world_size() > 1:
        with translate_dist_errors(), torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


def all_reduce_grads(weights: Sequence[torch.nn.Parameter]) -> None:
    """Give every weight the sum of its gradients over all processes; a weight without any has none afterwards."""
    if world_size() == 1:
        return
    has_gradient = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8)
    with translate_dist_errors():
        dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
        for bucket in _buckets([weight for weight, has in zip(weights, has_gradient.tolist(), strict=True) if has]):
            parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in bucket]
            flat = torch.cat([part.reshape(-1) for part in parts])
            dist.all_reduce(flat)
            for weight, part in zip(bucket, flat.split([part.numel() for part in parts]), strict=True):
                weight.grad = part.view_as(weight)


def _buckets(weights: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Weights of one kind that lie next to each other, up to BUCKET_BYTES together."""
    bucket: list[torch.nn.Parameter] = []
    for weight in weights:
        alike = bucket and (bucket[0].dtype, bucket[0].device) == (weight.dtype, weight.device)
        if bucket and not (alike and sum(each.nbytes for each in bucket) + weight.nbytes <= BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(weight)
    if bucket:
        yield bucket
