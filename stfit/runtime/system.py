"""What operating systems do differently. Nothing else of stfit asks which system it runs on."""

from __future__ import annotations

import ctypes
import platform
import re
import signal
from contextlib import suppress
from pathlib import Path

import psutil

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
"""Signals that ask a process to stop. Windows has no SIGHUP, and alone has SIGBREAK."""

PR_SET_PDEATHSIG = 1
"""Setting of prctl(2), from Linux' sys/prctl.h: the signal that a process gets when its parent dies."""


def count_cores() -> int:
    """Cores that this process may use. macOS ties no process to cores."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


def describe_machine() -> str:
    return f"{_processor()}, {count_cores()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    name = cpuinfo.is_file() and re.search(r"^model name\s*: *(.+)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def peak_memory() -> int:
    """The most memory that this process has had in use, in bytes."""
    peak: int | None = getattr(psutil.Process().memory_info(), "peak_wset", None)  # of Windows
    if peak is not None:
        return peak
    status = Path(
        "/proc/self/status"
    )  # of Linux, whose `ru_maxrss` begins with the peak of the program that started us
    if status.is_file() and (own := re.search(r"VmHWM:\s*(\d+) kB", status.read_text("ascii"))):
        return int(own[1]) * 1024
    import resource  # missing on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if psutil.MACOS else 1024)


CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files of Linux with the most memory that a container may use, of both versions; v2 writes `max` for no limit."""


def usable_memory() -> int:
    """Memory of the machine, or of the container if that has less, in bytes."""
    texts = [Path(name).read_text(encoding="ascii").strip() for name in CGROUP_LIMITS if Path(name).is_file()]
    return min([psutil.virtual_memory().total, *(int(text) for text in texts if text.isdecimal())])


def is_kill(number: int) -> bool:
    """Whether a process that this signal has ended could do nothing about it. The kernel sends it if memory is out."""
    return number == getattr(signal, "SIGKILL", None)


def call_libc(name: str, *arguments: int) -> None:
    """Call a function of the C library that this process has loaded, if it has that function."""
    with suppress(TypeError, AttributeError):  # Windows has no such library; others lack Linux' functions
        getattr(ctypes.CDLL(None), name)(*arguments)


def end_with_parent() -> None:
    """Let SIGTERM end this process when its parent dies, where the system supports it."""
    call_libc("prctl", PR_SET_PDEATHSIG, signal.SIGTERM)
