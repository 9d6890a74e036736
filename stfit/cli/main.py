"""Entry point of the command line: run a verb, turn every failure into a message and an exit code."""

import atexit
import gc
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn

import typer

from stfit.cli import console
from stfit.cli.app import app
from stfit.cli.failures import failure_from, print_failure
from stfit.cli.launch import require_parallel
from stfit.cli.progress import show_progress
from stfit.cli.quick_imports import defer_imports
from stfit.cli.streams import prepare_streams
from stfit.distributed import is_initialized, is_rank_zero, launched_world_size, process_group, write_error_file
from stfit.errors import InterruptedRun

SIGINT_EXIT = 130
"""What newer versions of typer return after Ctrl-C, where older ones raise Abort."""


def main_and_exit() -> NoReturn:
    """`main`, and an exit without the half second in which Python would free a million objects one by one."""
    try:
        main()
    except SystemExit as end:
        threading._shutdown()  # type: ignore[attr-defined]  # the first two steps of Python's own end
        atexit._run_exitfuncs()
        with suppress(OSError, ValueError):  # a pipe that nobody reads, a stream that was closed
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else end.code is not None)


def main() -> NoReturn:
    """--debug is removed before the arguments are parsed, so that it also applies to errors of parsing."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = _default_lock_argument([argument for argument in arguments if argument != "--debug"]) or ["--help"]
    gc.set_threshold(100_000)  # importing torch creates a million objects and no garbage: collecting costs 0.3 s
    defer_imports()
    prepare_streams()
    console.start_logging()
    try:
        require_parallel(arguments)
        if launched_world_size():
            from stfit.runtime.system import end_with_parent

            end_with_parent()  # when torchrun dies, so that no orphan keeps running
        with process_group():
            if not is_rank_zero():
                console.silence()
            with show_progress():
                code = app(arguments, standalone_mode=False, prog_name="stfit")
            if code == SIGINT_EXIT:
                raise typer.Abort
            sys.stdout.flush()
        sys.exit(code)
    except (Exception, InterruptedRun) as error:
        if debug:
            sys.stderr.write("".join(traceback.format_exception(error)))
        failure = failure_from(error)
        if launched_world_size():
            write_error_file(failure.name, failure.message or "", failure.exit_code)
        else:
            print_failure(failure, as_json="--json" in arguments)
        _exit_process(failure.exit_code)


def _default_lock_argument(arguments: list[str]) -> list[str]:
    """Write `--locked` without a FILE as `--locked=`: typer has no options with an optional value."""
    following = [*arguments[1:], ""]
    return [
        "--locked=" if argument == "--locked" and not after.endswith(".lock") else argument
        for argument, after in zip(arguments, following, strict=False)  # `following` is longer if there are none
    ]


def _exit_process(code: int) -> NoReturn:
    """A stalled Hub request would keep the process alive; threads of a group that lost a worker would abort it."""
    from stfit.hub.retry import monitor

    if monitor.abandoned_threads or is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
