"""`stfit report` and `stfit runs`: the pages and the list made from run folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stfit.io.atomic import atomic_write
from stfit.report.comparison import comparison_page
from stfit.report.page import report_page
from stfit.report.run_summary import MetricDelta, RunSummary
from stfit.runtime.run_folder import RunFolder
from stfit.workflows.summarize_run import bootstrap_draws, last_written, metric_deltas, summarize_run

COMPARISON = "comparison.html"


def report(runs: Sequence[Path], output: Path | None = None) -> dict[str, Any]:
    summaries = [summarize_run(RunFolder(run)) for run in runs]
    if len(runs) == 1:
        path = output or RunFolder(runs[0]).report
        page = report_page(summaries[0])
    else:
        path = output or runs[0].parent / COMPARISON
        page = comparison_page(summaries, [_deltas_over(summaries[0], summary) for summary in summaries])
    atomic_write(path, page)
    return {"output": str(path), "runs": [str(run) for run in runs]}


def _deltas_over(first: RunSummary, run: RunSummary) -> dict[str, MetricDelta]:
    draws, first_draws = bootstrap_draws(run.record, "end"), bootstrap_draws(first.record, "end")
    return metric_deltas(run.after, first.after, draws, first_draws)


def runs_in(folder: Path) -> list[dict[str, Any]]:
    runs = [RunFolder(path) for path in folder.iterdir()] if folder.is_dir() else []
    started = [run for run in runs if run.lock.is_file()]
    return [_list_entry(run) for run in sorted(started, key=lambda run: (last_written(run), run.path.name))]


def _list_entry(folder: RunFolder) -> dict[str, Any]:
    summary = summarize_run(folder)
    metric = summary.main[0] if summary.main else ""
    delta = summary.gains.get(metric)
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
        "verdict": delta.verdict if delta else None,
    }
