"""What becomes of memory that is freed: it stays with the process for the next step, or goes back to the system.

glibc gives large blocks back when they are freed. A training step takes the same gigabytes as the step before it, and
fetching them again page by page was a sixth of its time on long texts.
"""

from __future__ import annotations

import ctypes
import logging

from stfit.distributed import world_size

log = logging.getLogger("stfit")

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of settings, from glibc's malloc.h (man 3 mallopt)."""
LARGEST_THRESHOLD = 32 * 2**20
"""Blocks up to this size come from the heap; glibc takes no larger number."""
GIVEN_BACK = 2**20
"""Blocks from this size on go back to the system, where memory is scarce; by itself glibc comes to keep larger ones."""


def configure_malloc(sharded: bool) -> None:
    """Keep what is freed, but where a model is cut up for want of memory; does nothing on systems without glibc."""
    if sharded and world_size() > 1:
        _set_malloc(MMAP_THRESHOLD, GIVEN_BACK)
        return
    _set_malloc(MMAP_THRESHOLD, LARGEST_THRESHOLD)
    _set_malloc(TRIM_THRESHOLD, -1)
    if sharded:
        log.warning("train.shard changes nothing, since there is one process: start several with `--processes`")


def _set_malloc(setting: int, value: int) -> None:
    """Change a setting of the allocator, where it is glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(setting, value)
