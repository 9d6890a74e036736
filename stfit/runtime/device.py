"""Choose device and precision, and describe the machine."""

import logging
import platform
import re

from stfit.errors import RecipeError
from stfit.lazy import torch
from stfit.runtime.system import describe_machine

log = logging.getLogger("stfit")


def choose_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()  # the device `meta` holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:  # torch was built without support
        reason = re.split(r"\n|\. ", str(error))[0]
        raise RecipeError(f"device `{device}` is not available: {reason}; write cpu, cuda, cuda:1 or mps") from error
    return device


def choose_precision(precision: str, device: str) -> str:
    if precision == "auto":
        return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"
    warn_of_slow_precision(precision, device)
    return precision


def warn_of_slow_precision(precision: str, device: str) -> None:
    if device == "cpu" and precision == "bfloat16" and not _cpu_multiplies_bfloat16():
        log.warning("this CPU has no instructions for products in bfloat16: float32 is faster")


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for products in bfloat16: avx512_bf16 or AMX of x86, or bf16 of ARM."""
    if platform.machine() in ("x86_64", "AMD64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def describe_hardware(device: str) -> str:
    gpu = [torch.cuda.get_device_name(device)] if device.startswith("cuda") else []
    return "; ".join([*gpu, describe_machine()])
