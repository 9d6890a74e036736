"""`stfit report` and `stfit runs`: the pages and the list made from run folders."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stfit.errors import RecipeError, StfitError
from stfit.io.atomic import atomic_write
from stfit.io.outputs import require_output
from stfit.report.page import report_page
from stfit.runtime.run_folder import RunFolder
from stfit.workflows.report.compare_runs import write_comparison
from stfit.workflows.report.summarize_run import last_written, summarize_run

log = logging.getLogger("stfit")


def report(runs: Sequence[Path], output: Path | None = None, against: Path | None = None) -> dict[str, Any]:
    """`against`: one of several runs, with which the others are compared; by default the first."""
    folders, baseline = [run.resolve() for run in runs], (against or runs[0]).resolve()
    if baseline not in folders:
        raise RecipeError(f"--against {against} is none of the runs of this report: name it among them")
    if output is not None:
        pages = [RunFolder(run).report for run in runs]
        read = (path for run in runs for path in run.rglob("*") if path not in pages)
        require_output(output, read)
        if output.suffix != ".html":
            raise RecipeError(f"{output}: a report is a page, so its name ends with .html")
    if len(runs) == 1:
        path = output or RunFolder(runs[0]).report
        atomic_write(path, report_page(summarize_run(RunFolder(runs[0]))))
    else:
        path = output or runs[0].parent / "comparison.html"
        write_comparison(runs, path, folders.index(baseline))
    return {"output": str(path), "runs": [str(run) for run in runs]}


def runs_in(folder: Path) -> list[dict[str, Any]]:
    runs = [RunFolder(path) for path in folder.iterdir()] if folder.is_dir() else []
    started = [run for run in runs if run.lock.is_file()]
    return [_list_entry(run) for run in sorted(started, key=lambda run: (last_written(run), run.path.name))]


def _list_entry(folder: RunFolder) -> dict[str, Any]:
    try:
        summary = summarize_run(folder)
    except StfitError as error:  # one damaged run must not hide the others
        log.warning("%s", error)
        unknown = dict.fromkeys(("recipe", "metric", "before", "after", "verdict"))
        return {
            "run": str(folder.path),
            "state": "damaged",
            "date": f"{last_written(folder):%Y-%m-%d %H:%M}",
            **unknown,
        }
    metric = next(iter(summary.main), "")
    parts = dict(reversed(summary.inputs))  # of several objectives, the first
    base, data = (Path(parts[name].split(",")[0]).name for name in ("base", "data"))
    return {
        "run": str(folder.path),
        "state": summary.state,
        "date": summary.date,
        "recipe": f"{base}, {parts['loss']}, {data}",
        "metric": metric or None,
        "before": summary.before.get(metric),
        "after": summary.after.get(metric),
        "verdict": summary.gains.get(metric, {}).get("verdict"),
    }
