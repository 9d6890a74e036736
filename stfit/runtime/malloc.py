"""Whether freed memory stays with the process or returns to the operating system, and how much kernels may keep.

glibc returns large blocks when they are freed. Every training step allocates the same gigabytes again, and faulting
them in page by page took a sixth of its time on long texts.

oneDNN, and torch's layer above it, each keep the compiled kernels of the last 1024 shapes. Nearly every batch has a
number of tokens of its own, which needs about ten kernels of some hundred KB each: training a tiny model grew by 600 MB
in 400 steps, for kernels that are hardly used again.
"""

import gc
import logging
import os

from stfit.distributed import world_size
from stfit.runtime.system import call_libc

log = logging.getLogger("stfit")

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3), from glibc's malloc.h."""
MAX_MMAP_THRESHOLD = 32 * 2**20
"""Blocks up to this size come from the heap; glibc accepts no larger value."""
LOW_MMAP_THRESHOLD = 2**20
"""With sharding, blocks of this size and more are returned at once; by default glibc raises the threshold over time."""

KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Read by oneDNN, and by torch's layer above it, when they compile the first kernel."""
KEPT_KERNELS = 64
"""More than one step uses: all layers have the same shapes."""


def limit_kernel_caches() -> None:
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, str(KEPT_KERNELS))


def configure_malloc(sharded: bool) -> None:
    if sharded and world_size() > 1:
        call_libc("mallopt", MMAP_THRESHOLD, LOW_MMAP_THRESHOLD)
        return
    call_libc("mallopt", MMAP_THRESHOLD, MAX_MMAP_THRESHOLD)
    call_libc("mallopt", TRIM_THRESHOLD, -1)
    if sharded:
        log.warning("train.shard has no effect with a single process: use `--processes`")


def return_freed_memory() -> None:
    """Before the memory is needed for something else, as for a second copy of the model; and after that copy.

    Encoders are parts of reference cycles, which only the garbage collector frees.
    """
    gc.collect(1)  # young objects: going through all would take half a second at each save
    call_libc("malloc_trim", 0)
