"""Run stfit as on macOS or Windows: what those systems lack is taken away before the first import of stfit.

    python tests/runtime/other_systems.py (macos | windows) train recipe.yaml [+ encode ...] ...

Ends with the code of the first command that fails, else with 0.
"""

import ctypes
import os
import signal
import sys
from itertools import groupby
from types import SimpleNamespace

import filelock
import psutil

LACKING = {
    "macos": {os: ["sched_getaffinity", "sched_setaffinity"], psutil.Process: ["cpu_affinity"]},
    "windows": {
        os: ["sched_getaffinity", "sched_setaffinity", "sysconf", "getuid", "O_DIRECTORY", "fork", "kill"],
        signal: ["SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "alarm", "setitimer"],
    },
}
MISSING_MODULES = {"macos": [], "windows": ["fcntl", "resource", "pwd", "grp", "termios"]}
CDLL = ctypes.CDLL


def load_library(name, *arguments, **options):
    if name is None:
        raise TypeError("bad argument type for built-in operation")
    return CDLL(name, *arguments, **options)


class LibraryWithoutLinux(CDLL):
    def __getattr__(self, name):
        if name in ("prctl", "mallopt"):
            raise AttributeError(name)
        return super().__getattr__(name)


def become(system: str) -> None:
    for module, names in LACKING[system].items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.modules.update(dict.fromkeys(MISSING_MODULES[system]))
    if system == "macos":
        psutil.MACOS, ctypes.CDLL = True, LibraryWithoutLinux
    else:
        psutil.Process.memory_info = lambda process: SimpleNamespace(peak_wset=123 * 2**20)
        filelock.FileLock, ctypes.CDLL = filelock.SoftFileLock, load_library


if __name__ == "__main__":
    become(sys.argv[1])
    from stfit.cli.main import main

    for is_command, words in groupby(sys.argv[2:], lambda word: word != "+"):
        if is_command:
            sys.argv[1:] = words
            try:
                main()
            except SystemExit as end:
                if end.code:
                    raise
