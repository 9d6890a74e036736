"""Memory that is freed stays with the process, ready for the next step.

glibc gives large blocks back to the system when they are freed. A training step takes the same gigabytes as the step
before it, and fetching them again page by page was a sixth of its time on long texts.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of settings, from glibc's malloc.h (man 3 mallopt)."""
LARGEST_THRESHOLD = 32 * 2**20
"""Blocks up to this size come from the heap; glibc takes no larger number."""


GIVEN_BACK = 2**20
"""Blocks from this size on go back to the system as soon as they are freed, where memory is scarce."""


def keep_freed_memory() -> None:
    """Ask the allocator to keep what is freed; does nothing on systems without glibc."""
    set_malloc(MMAP_THRESHOLD, LARGEST_THRESHOLD)
    set_malloc(TRIM_THRESHOLD, -1)


def give_freed_memory_back() -> None:
    """Ask the allocator to give large blocks back: by itself it comes to keep those of up to 32 MiB."""
    set_malloc(MMAP_THRESHOLD, GIVEN_BACK)


def set_malloc(setting: int, value: int) -> None:
    """Change a setting of the allocator, where it is glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(setting, value)
