"""Forked processes that tests kill or give a disk of their own. Forking avoids importing torch again."""

import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from stfit.commands.train import train
from stfit.distributed import process_group
from stfit.events import StepInfo
from stfit.recipe.load import load_recipe

needs_mounts = pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0
    if os.path.exists("/usr/bin/unshare")
    else True,
    reason="mounts a file system of its own, which takes root on Linux",
)


def fork(action: Callable[[], object], output: Path | None = None) -> int:
    """Fork a child that runs `action`; returns its process id. Its output goes to `output`.

    It exits with 0, with the exit code of an error of stfit, or with 1 and a traceback.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of libraries, which the child does not touch
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        sink = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        action()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        code = getattr(error, "exit_code", 1)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


def wait(child: int) -> int:
    """Exit code of a child, or minus the number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_in_child(action: Callable[[], object], output: Path | None = None) -> int:
    """Run `action` in a child and wait for it; see `wait`."""
    return wait(fork(action, output))


def die() -> None:
    """Kill this process without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def send(number: int) -> None:
    """Send a signal to this process."""
    os.kill(os.getpid(), number)


def at_call(action: Callable[[], object], number: int, strike: Callable[[], None] = die) -> int:
    """Run `action`, and call `strike` at its call number `number` of a Python or C function.

    Returns the number of calls.
    """
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1
            if calls == number:
                strike()

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def at_line(action: Callable[[], object], number: int, files: tuple[str, ...]) -> int:
    """Run `action`, and die when line number `number` runs of those in `files`. Returns the number of lines."""
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(files):
            return None
        if event == "line":
            lines += 1
            if lines == number:
                die()
        return count

    sys.settrace(count)
    try:
        action()
    finally:
        sys.settrace(None)
    return lines


def fork_group(count: int, action: Callable[[], object], output: Path | None = None) -> list[int]:
    """Fork `count` children that run `action` as the ranks of one run; returns their process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run_rank(rank: int) -> None:
        group = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in group.items()})
        with process_group():
            action()

    return [fork(partial(run_rank, rank), output) for rank in range(count)]


def run_group(count: int, action: Callable[[], object], output: Path | None = None) -> list[int]:
    """Run `action` in the ranks of one run and wait for them; see `wait`."""
    return [wait(child) for child in fork_group(count, action, output)]


def stop_at(recipe: Path, runs: Path, step: int) -> None:
    """Train until `step` is finished, then stop without saving, as if the process had been killed."""
    events = train(load_recipe(recipe), runs)
    for event in events:
        if isinstance(event, StepInfo) and event.step == step:
            break
    events.close()
