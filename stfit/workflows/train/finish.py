"""The end of a training: its gates, the model card, the lock beside the model, the result and the report."""

from typing import Any

from stfit.data.mapping.examples import Examples
from stfit.distributed import is_rank_zero
from stfit.evaluation.gate import GateResult
from stfit.events import Finished
from stfit.io.atomic import atomic_write
from stfit.io.json_files import seal_json
from stfit.progress import task
from stfit.recipe.lock import LOCK, Lock, lock_to_json, without_local_folders
from stfit.runtime.device import describe_hardware
from stfit.runtime.system import peak_memory
from stfit.workflows.evaluate.check_gates import check_gates_after_training
from stfit.workflows.report.card_data import write_card
from stfit.workflows.report.report_data import log_exceptions
from stfit.workflows.report.summarize_run import compare_with_start, write_report
from stfit.workflows.train.session import TrainingSession


def finish_training(
    session: TrainingSession, device: str, main: list[str], training: list[Examples], lock: Lock
) -> Finished:
    """Write the model card, the lock beside the model, the result (the run has then finished), and the report."""
    folder, state = session.folder, session.state
    gates = _check_gates(session, device) if session.recipe.gate else []
    result = {
        "run": str(folder.path),
        "model": str(folder.model),
        "steps": state.step,
        "seconds": round(state.seconds, 3),
        "spent": {name: round(seconds, 3) for name, seconds in state.spent.items()},
        "examples_per_second": state.examples_per_second,
        "processes": state.processes,
        "hardware": describe_hardware(device),
        "peak_rss_mib": peak_memory() / 2**20,
        "baseline": state.baseline,
        "metrics": state.metrics,
        "gains": compare_with_start(main, state.metrics, state.baseline, session.report_data.facts),
        **({"gate": gates} if gates else {}),
    }
    if is_rank_zero():
        write_card(folder, result, main, training)
        atomic_write(folder.model / LOCK, lock_to_json(without_local_folders(lock)))
        atomic_write(folder.result, seal_json({"result": result, "main": main, "weights": state.weights}))
        with log_exceptions("writing report.html (`stfit report` writes it again)"), task("writing the report"):
            write_report(folder)
    return Finished(result, main)


def _check_gates(session: TrainingSession, device: str) -> list[dict[str, Any]]:
    gates: list[GateResult] = []
    with log_exceptions("holding the model against its gate (`stfit eval` does it too)"):
        if "end" not in session.statistics:  # an earlier process has measured it
            with session.objects.full_encoder() as encoder:
                session.measure(encoder, "end")
        before, after = session.statistics.get("start", {}), session.statistics["end"]
        gates = check_gates_after_training(before, after, session.evaluators, session.recipe, device)
    return list(map(vars, gates))
