"""The machine: what of it a run uses, and what it is, in a line."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from stfit.errors import RecipeError


def choose_device(wanted: str) -> str:
    """The device to train on; `auto` is the first GPU, else the CPU. Raises RecipeError for one that is not there."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch that was built without the device
        raise RecipeError(f"device `{wanted}` can't be used here: {str(error).splitlines()[0]}") from error
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """Data type of the matrix products; `auto` is bfloat16 on a GPU that has it, else float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def describe_hardware(device: str) -> str:
    """Processor, cores and memory, and the GPU where one was used."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    machine = f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory"
    return f"{torch.cuda.get_device_name(device)}; {machine}" if device.startswith("cuda") else machine


def _processor() -> str:
    """Name of the processor, or of its architecture where the system does not tell."""
    try:
        named = re.search(r"^model name\s*: *(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        named = None
    return named[1] if named else platform.machine()
