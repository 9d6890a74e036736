"""Whether freed memory stays with the process or returns to the operating system.

glibc returns large blocks when they are freed. Every training step allocates the same gigabytes again, and faulting
them in page by page took a sixth of its time on long texts.
"""

import logging

from stfit.distributed import world_size
from stfit.runtime.system import call_libc

log = logging.getLogger("stfit")

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3), from glibc's malloc.h."""
MAX_MMAP_THRESHOLD = 32 * 2**20
"""Blocks up to this size come from the heap; glibc accepts no larger value."""
LOW_MMAP_THRESHOLD = 2**20
"""With sharding, blocks of this size and more are returned at once; by default glibc raises the threshold over time."""


def configure_malloc(sharded: bool) -> None:
    if sharded and world_size() > 1:
        call_libc("mallopt", MMAP_THRESHOLD, LOW_MMAP_THRESHOLD)
        return
    call_libc("mallopt", MMAP_THRESHOLD, MAX_MMAP_THRESHOLD)
    call_libc("mallopt", TRIM_THRESHOLD, -1)
    if sharded:
        log.warning("train.shard has no effect with a single process: use `--processes`")
