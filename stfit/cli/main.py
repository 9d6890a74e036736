"""The whole of a command: run it, and make of every failure a message and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from stfit.cli import console
from stfit.cli.app import app
from stfit.cli.launch import require_parallel
from stfit.distributed import is_initialized, is_rank_zero, process_group
from stfit.errors import InterruptedRun


def _with_lone_lock(arguments: list[str]) -> list[str]:
    """The arguments with `--locked=` for a `--locked` that no FILE follows: typer knows no optional values."""
    following = [*arguments[1:], ""]
    return [
        "--locked=" if argument == "--locked" and not after.endswith(".lock") else argument
        for argument, after in zip(arguments, following, strict=False)  # none, where there are no arguments
    ]


def main() -> NoReturn:
    """Run the command line; every failure becomes a message and an exit code, a traceback only with --debug."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = _with_lone_lock([argument for argument in arguments if argument != "--debug"]) or ["--help"]
    gc.set_threshold(100_000)  # importing torch makes a million objects and no garbage: looking for some costs 0.3 s
    console.start_logging()
    try:
        require_parallel(arguments)
        with process_group():
            if not is_rank_zero():
                console.be_silent()
            code = app(arguments, standalone_mode=False, prog_name="stfit")
        sys.exit(code)
    except (Exception, InterruptedRun) as error:
        if debug:
            console.show_traceback(error)
        _leave(console.show_error(error, as_json="--json" in arguments))


def _leave(code: int) -> NoReturn:
    """End the process; in the hard way where threads are left behind.

    Those of a request to the Hub would keep it, those of a group that has lost a process abort it.
    """
    from stfit.hub.retry import has_abandoned_threads

    if has_abandoned_threads() or is_initialized():
        console.flush()
        os._exit(code)
    sys.exit(code)
