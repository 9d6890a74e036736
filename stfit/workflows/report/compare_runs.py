"""Write the page that compares several runs."""

from collections.abc import Sequence
from pathlib import Path

from stfit.io.atomic import atomic_write
from stfit.report.comparison import comparison_page
from stfit.runtime.run_folder import RunFolder
from stfit.workflows.report.summarize_run import compare_metrics, summarize_run


def write_comparison(runs: Sequence[Path], path: Path, against: int = 0) -> None:
    """`against`: the position of the run that the others are compared with."""
    summaries = [summarize_run(RunFolder(run)) for run in runs]
    other = summaries[against]
    gains = [compare_metrics(run.after, run.record, other.after, other.record, "end") for run in summaries]
    atomic_write(path, comparison_page(summaries, gains, against))
