"""`--processes N`: torchrun, as a library, starts the same command N times; whatever goes wrong is said once."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from stfit.distributed import launched_world_size
from stfit.errors import InterruptedRun, RecipeError, ResourceError, WorkerLostError

PARALLEL = ("train", "eval", "encode")
"""The verbs that share their work out."""


class Failure(NamedTuple):
    """How a run of several processes failed; `message` is None where a process has said it already."""

    name: str
    message: str | None
    exit_code: int


def is_alone(processes: int | None) -> bool:
    """Whether this process does the work, alone or as one of those that torchrun has started.

    Raises RecipeError where torchrun has started another number than is asked for.
    """
    started = launched_world_size()
    if started is None:
        return processes in (None, 1)
    if processes not in (None, started):
        raise RecipeError(f"--processes {processes}: torchrun has started {started} already: leave it out")
    return True


def require_parallel(arguments: list[str]) -> None:
    """Raise RecipeError where torchrun has started a verb that is for one process."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), "")
    if launched_world_size() is not None and verb not in PARALLEL:
        raise RecipeError(f"torchrun starts {', '.join(PARALLEL)}; `stfit {verb}` is for one process")


def launch(processes: int) -> Failure | None:
    """Start this command in so many processes, and wait for them. No process outlives the call."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # some have a level of their own
    cores = len(os.sched_getaffinity(0))
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
            elastic_launch(config, sys.executable)(*import_path(), "-m", "stfit", *sys.argv[1:])
        except ChildFailedError as error:
            return explain(_read_reports(Path(folder)), {rank: end.exitcode for rank, end in error.failures.items()})
        except SignalException as error:
            return explain(_read_reports(Path(folder)), {}) or _interrupted(error.sigval)
    return None


def import_path() -> list[str]:
    """No option where this process imports from the current folder, else the one that keeps `-m` from it.

    What lies beside a recipe is not run.
    """
    return [] if sys.path[0] in ("", os.getcwd()) else ["-P"]


def _read_reports(folder: Path) -> dict[int, dict[str, Any]]:
    """What the processes have reported, by their rank."""
    return {int(path.parent.name): json.loads(path.read_text("utf-8")) for path in folder.rglob("error.json")}


def explain(reports: dict[int, dict[str, Any]], exits: dict[int, int]) -> Failure | None:
    """What began it: an error by itself, else a process that was killed, else a signal to all; a lost peer follows."""

    def first(wanted: bool, *names: str) -> Failure | None:
        found = [report for _, report in sorted(reports.items()) if (report["class"] in names) == wanted]
        lowest = min(found, key=lambda report: int(report["exit_code"]), default=None)
        return Failure(lowest["class"], lowest["message"], lowest["exit_code"]) if lowest else None

    struck = [rank for rank, code in sorted(exits.items()) if code < 0 and -code != signal.SIGTERM]
    killed = [rank for rank in struck if rank not in reports]  # who could still say something did not begin it
    return (
        first(False, WorkerLostError.__name__, InterruptedRun.__name__)
        or (_killed_by(killed[0], -exits[killed[0]]) if killed else None)
        or first(True, InterruptedRun.__name__)
        or first(True, WorkerLostError.__name__)
        or (Failure("", None, max(exits.values())) if exits else None)
    )


def _killed_by(rank: int, number: int) -> Failure:
    """A process that could not say anything itself."""
    name = signal.Signals(number).name
    why = " (no memory left?)" if number == signal.SIGKILL else ""
    message = f"process {rank} was killed by {name}{why}; the same command goes on from what is saved"
    return Failure(ResourceError.__name__, message, ResourceError.exit_code)


def _interrupted(number: signal.Signals) -> Failure:
    """A signal before there was anything to save."""
    return Failure(InterruptedRun.__name__, f"stopped by {number.name}", 128 + number)
