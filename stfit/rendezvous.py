"""How the processes of a run find each other, also after torchrun has started them again.

torchrun may keep one store for all attempts, in which the processes of an earlier attempt have left their addresses. So
those of this attempt agree on a name that none had before, under which they write theirs.
"""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from stfit.errors import WorkerLostError
from stfit.lazy import lazy

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import Store
else:
    dist = lazy("torch.distributed")

GROUP = "stfit/group"
PAUSE = 0.02


def init_group(backend: str, timeout: timedelta) -> None:
    """Raises WorkerLostError if a process does not come in time."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=timeout))
    name = _agree_on_name(store, rank, size, time.monotonic() + timeout.total_seconds())
    own_store = PrefixStore(f"stfit/{name}", store)
    dist.init_process_group(backend, store=own_store, rank=rank, world_size=size, timeout=timeout)


def _agree_on_name(store: Store, rank: int, size: int, deadline: float) -> str:
    """The name is rank 0's; each other rank takes it only with the proof that this rank 0 has seen it come."""
    own = uuid4().hex
    if rank:
        store.set(f"stfit/came/{rank}", own)
    while time.monotonic() < deadline:
        if rank == 0:
            came = [_read(store, f"stfit/came/{other}") for other in range(1, size)]
            store.set(GROUP, json.dumps([own, came]))
            if all(store.check([f"stfit/{own}/{other}"]) for other in range(1, size)):
                return own
        elif group := _read(store, GROUP):
            name, came = json.loads(group)
            if len(came) >= rank and came[rank - 1] == own:
                store.set(f"stfit/{name}/{rank}", "")
                return str(name)
        time.sleep(PAUSE)
    raise WorkerLostError(f"rank {rank}: not all {size} processes of this run have started")


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""
