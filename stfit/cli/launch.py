"""`--processes N`: run the same command in N worker processes and print their failure once.

torchrun is used as a library, because its own command line would print a traceback of each worker. Which worker's error
is the root cause has to be worked out here: a failing worker also brings the others down.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from stfit.cli.failures import Failure, print_failure
from stfit.distributed import launched_world_size
from stfit.errors import InterruptedRun, RecipeError, ResourceError, WorkerLostError

PARALLEL_VERBS = ("train", "eval")


def launch_workers(processes: int | None, as_json: bool) -> None:
    """Run this command in worker processes and exit with their code; return if this process is to do the work."""
    started = launched_world_size()
    if processes in (None, started or 1):
        return
    if started is not None:
        raise RecipeError(f"--processes {processes}: torchrun has already started {started}; remove the option")
    failure = _launch(processes or 1)
    if failure:
        print_failure(failure, as_json)
    raise typer.Exit(failure.exit_code if failure else 0)


def require_parallel(arguments: list[str]) -> None:
    verb = next((argument for argument in arguments if not argument.startswith("-")), "")
    if launched_world_size() is not None and verb not in PARALLEL_VERBS:
        hint = "; give each process its part instead: --part i/N" if verb == "encode" else ""
        raise RecipeError(f"`stfit {verb}` is not started by torchrun, as {' and '.join(PARALLEL_VERBS)} may be{hint}")


def _launch(processes: int) -> Failure | None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from stfit.runtime.system import count_cores

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # some set their own level
    cores = count_cores()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    with TemporaryDirectory(prefix="stfit-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=f"stfit-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)(*safe_path_option(), "-m", "stfit", *sys.argv[1:])
        except ChildFailedError as error:
            exits = {rank: worker.exitcode for rank, worker in error.failures.items()}
            return root_cause(_read_error_files(Path(folder)), exits)
        except SignalException as error:
            stopped = Failure(InterruptedRun.__name__, f"stopped by {error.sigval.name}", 128 + error.sigval)
            return root_cause(_read_error_files(Path(folder)), {}) or stopped
    return None


def safe_path_option() -> list[str]:
    """`-m` puts the current folder on the path, and Python files next to a recipe must not be imported."""
    return [] if sys.path[0] in ("", os.getcwd()) else ["-P"]


def _read_error_files(folder: Path) -> dict[int, dict[str, Any]]:
    return {int(path.parent.name): json.loads(path.read_text("utf-8")) for path in folder.rglob("error.json")}


def root_cause(errors: dict[int, dict[str, Any]], exits: dict[int, int]) -> Failure | None:
    """The failure to show, by priority: an error of a worker, a killed worker, a signal to all, a lost worker."""
    consequences = (InterruptedRun.__name__, WorkerLostError.__name__)
    causes = [error for error in errors.values() if error["class"] not in consequences]
    # A worker that has written an error was stopped by torchrun afterwards: it is not the one that was killed first.
    killed = [rank for rank, code in exits.items() if code < 0 and -code != signal.SIGTERM and rank not in errors]
    if causes:
        return _lowest(causes)
    if killed:
        return _killed_by_signal(min(killed), -exits[min(killed)])
    for name in consequences:
        if same := [error for error in errors.values() if error["class"] == name]:
            return _lowest(same)
    return Failure("", None, max(exits.values())) if exits else None


def _lowest(errors: list[dict[str, Any]]) -> Failure:
    error = min(errors, key=lambda error: int(error["exit_code"]))
    return Failure(error["class"], error["message"], error["exit_code"])


def _killed_by_signal(rank: int, number: int) -> Failure:
    from stfit.runtime.system import is_kill

    reason = " (out of memory?)" if is_kill(number) else ""
    message = (
        f"process {rank} was killed by {signal.Signals(number).name}{reason}; run the same command again to resume"
    )
    return Failure(ResourceError.__name__, message, ResourceError.exit_code)
