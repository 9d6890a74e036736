"""The processes of one run, and their collective operations.

Every rank samples the same batches and embeds its share of the texts; all ranks gather all embeddings and compute the
same loss. Only rank 0 writes and prints. In a run of one process, the functions below do nothing.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from stfit.errors import WorkerLostError
from stfit.lazy import Tensor, lazy, torch
from stfit.rendezvous import init_group

if TYPE_CHECKING:
    import numpy as np
    import torch.distributed as dist
else:
    np, dist = lazy("numpy"), lazy("torch.distributed")

T = TypeVar("T")

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun, or a launcher like it, sets for each process."""
LONG = timedelta(hours=6)
"""How long ranks wait for one that still reads, tokenizes or measures. A dead one is noticed at once; one whose machine
or network is gone, which closes no connection, when this time is over."""
SECONDS_TO_REPORT = 20.0
"""After a timeout, how long the ranks that are there look for each other, to name the one that is not."""
BUCKET_BYTES = 2**25


def launched_world_size() -> int | None:
    """Number of processes that torchrun started; None if this process was not started by it."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in LAUNCHED) else None


def is_initialized() -> bool:
    """Whether there is a process group; does not import torch."""
    return "torch.distributed" in sys.modules and dist.is_available() and dist.is_initialized()


def world_size() -> int:
    return dist.get_world_size() if is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if is_initialized() else 0


def is_rank_zero() -> bool:
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    if launched_world_size() is None:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # makes `cuda` this rank's GPU
    with translate_dist_errors():
        init_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", LONG)
    hosts[:] = all_gather_object(platform.node())
    yield
    dist.destroy_process_group()  # skipped after an error, where it could wait for healthy ranks


hosts: list[str] = []
"""Name of the machine of each rank."""
_timeouts = [LONG]
"""Of the blocks that the program is in, the innermost last."""


@contextmanager
def collective_timeout(limit: timedelta) -> Iterator[None]:
    """In the block, ranks wait no longer than this for each other."""
    if world_size() == 1:
        yield
        return
    _timeouts.append(limit)
    dist.distributed_c10d._set_pg_timeout(limit)
    try:
        yield
    finally:
        _timeouts.pop()
        dist.distributed_c10d._set_pg_timeout(_timeouts[-1])


def _name_silent() -> str:
    """The processes that do not say within SECONDS_TO_REPORT that they are waiting, too."""
    silent = {0}  # the store is on its machine, and asking there may take for ever

    def ask() -> None:
        nonlocal silent
        store = dist.distributed_c10d._get_default_store()
        store.set(f"stfit/waiting/{rank()}", "")
        others = set(range(world_size())) - {rank()}
        deadline = time.monotonic() + SECONDS_TO_REPORT / 2
        while others and time.monotonic() < deadline:
            others -= {other for other in others if store.check([f"stfit/waiting/{other}"])}
            time.sleep(0.1)
        silent = others

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS_TO_REPORT)
    return " and ".join(f"process {other} on {hosts[other]}" for other in sorted(silent)) or "the network"


def write_error_file(name: str, message: str, exit_code: int) -> None:
    """Write an error to the file that torchrun collects, so that it is printed once whichever rank raised it."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        content = {"message": message, "timestamp": int(time.time()), "class": name, "exit_code": exit_code}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)


@contextmanager
def translate_dist_errors(mixed: bool = False) -> Iterator[None]:
    """Convert errors of collective operations, and no others if `mixed` with other work, to WorkerLostError."""
    try:
        yield
    except RuntimeError as error:  # gloo and NCCL have many messages
        if mixed and not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        reason = str(error).splitlines()[0]
        if "timed out" not in reason.lower() or not hosts:
            raise WorkerLostError(f"another process of this run was lost: {reason}") from error
        waited = f"{_timeouts[-1].total_seconds() / 60:g} minutes"
        raise WorkerLostError(
            f"{_name_silent()} has not answered for {waited} (train.timeout_minutes): run the same command again, with "
            "the machines that are there, to go on from the last checkpoint"
        ) from error


def broadcast_object(value: T) -> T:
    if world_size() == 1:
        return value
    box = [value]
    with translate_dist_errors():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def on_rank_zero(action: Callable[[], T]) -> T:
    return broadcast_object(action() if is_rank_zero() else None)  # type: ignore[return-value]  # rank 0 has a T


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run the block on rank 0 first; the other ranks then find its files in the cache."""
    if not is_rank_zero():
        broadcast_object(None)
    yield
    if is_rank_zero():
        broadcast_object(None)


def all_reduce_max(number: int) -> int:
    if world_size() == 1:
        return number
    box = torch.tensor([number])
    with translate_dist_errors():
        dist.all_reduce(box, dist.ReduceOp.MAX)
    return int(box.item())


def all_gather_object(value: T) -> list[T]:
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    with translate_dist_errors():
        dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # none is None any more


def barrier() -> None:
    all_gather_object(None)


def partition(sizes: Sequence[int]) -> list[np.ndarray]:
    """Indices of the items that each rank takes, ascending: about equally many, of about equal total size."""
    longest_first = np.argsort(-np.asarray(sizes, dtype=np.int64), kind="stable")
    return [np.sort(longest_first[first :: world_size()]) for first in range(world_size())]


def all_gather_rows(local_sd: Tensor, shares: list[np.ndarray]) -> Tensor:
    """Rows of all ranks in their original order [rows, dim]; `local_sd` are this rank's, in the order of its share.

    Gradients flow to the local rows only. Every rank computes the same loss, so together they cover all rows.
    """
    largest = max(map(len, shares))
    if world_size() == 1 or not largest:
        return local_sd
    padded = local_sd.new_zeros(largest, local_sd.shape[1])
    padded[: len(local_sd)] = local_sd.detach()
    gathered = local_sd.new_empty(world_size() * largest, local_sd.shape[1])
    with translate_dist_errors():
        dist.all_gather(list(gathered.split(largest)), padded)
    place = np.concatenate([number * largest + np.arange(len(share)) for number, share in enumerate(shares)])
    order = np.argsort(np.concatenate(shares))
    full_sd = gathered[torch.from_numpy(place[order]).to(local_sd.device)]
    return full_sd.index_copy(0, torch.from_numpy(shares[rank()]).to(local_sd.device), local_sd)


def all_gather_numpy(local_rd: np.ndarray, shares: list[np.ndarray]) -> np.ndarray:
    return local_rd if world_size() == 1 else all_gather_rows(torch.from_numpy(local_rd), shares).numpy()


def broadcast_tensors(tensors: Sequence[Tensor]) -> None:
    if world_size() > 1:
        with translate_dist_errors(), torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


def all_reduce_grads(weights: Sequence[torch.nn.Parameter]) -> None:
    """Sum the gradients of every weight over all ranks; a weight without a gradient on any rank keeps None."""
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
    bucket: list[torch.nn.Parameter] = []
    for weight in weights:
        fits = bucket and (bucket[0].dtype, bucket[0].device) == (weight.dtype, weight.device)
        if bucket and not (fits and sum(member.nbytes for member in bucket) + weight.nbytes <= BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(weight)
    if bucket:
        yield bucket
