"""Processes that are made to die, forked off this one so that none has to import torch again."""

import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stfit.commands.train import train
from stfit.distributed import process_group
from stfit.recipe.load import load_recipe
from stfit.training.loop import StepInfo


def fork(action: Callable[[], object], output: Path | None = None) -> int:
    """A child that runs `action` and exits with 0, or 1 and a traceback; its id. What it prints goes to `output`."""
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
    """How a child ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_apart(action: Callable[[], object], output: Path | None = None) -> int:
    """Run `action` in a child to its end."""
    return wait(fork(action, output))


def die() -> None:
    """The end of this process, without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def send(number: int) -> None:
    """A signal to this process."""
    os.kill(os.getpid(), number)


def at_call(action: Callable[[], object], number: int, strike: Callable[[], None] = die) -> int:
    """Run `action` here, and die (or what `strike` does) at its call of that number, of Python or C.

    Gives the number of calls.
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
    """The same by lines of code that run in the files named."""
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
    """So many children that run `action` as the processes of one run; their ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def join_and_act(rank: int) -> None:
        group = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in group.items()})
        with process_group():
            action()

    return [fork(partial(join_and_act, rank), output) for rank in range(count)]


def run_group(count: int, action: Callable[[], object], output: Path | None = None) -> list[int]:
    """Run `action` in the processes of one run to its end; how each ended."""
    return [wait(child) for child in fork_group(count, action, output)]


def stop_at(recipe: Path, runs: Path, step: int) -> None:
    """Train until `step` is finished, and leave the run like a process that is killed there."""
    events = train(load_recipe(recipe), runs)
    for event in events:
        if isinstance(event, StepInfo) and event.step == step:
            break
    events.close()
