"""The machine that a run ran on, in a line."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch


def describe_hardware(device: str) -> str:
    """Processor, cores and memory, and the GPU where one was used."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    machine = f"{processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory"
    return f"{torch.cuda.get_device_name(device)}; {machine}" if device.startswith("cuda") else machine


def processor() -> str:
    """Name of the processor, or of its architecture where the system does not tell."""
    try:
        named = re.search(r"^model name\s*: *(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        named = None
    return named[1] if named else platform.machine()
