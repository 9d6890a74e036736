from pathlib import Path

from stfit.cli.console import log_line, print_json, print_table
from stfit.cli.options import Json, Runs
from stfit.io.display import format_metric

COLUMNS = ["run", "state", "metric", "before", "after", "verdict", "date", "recipe"]
METRIC_COLUMNS = ["before", "after"]


def runs_command(runs: Runs = Path("runs"), json: Json = False) -> None:
    """List the run folders, the newest last, with state and result.

    Example: stfit runs
    """
    from stfit.commands.report import runs_in

    entries = runs_in(runs)
    if json:
        print_json({"runs": entries})
        return
    rows = [
        [format_metric(entry[name]) if name in METRIC_COLUMNS else entry[name] or "" for name in COLUMNS]
        for entry in entries
    ]
    if rows:
        print_table(COLUMNS, rows, text_columns=[name for name in COLUMNS if name not in METRIC_COLUMNS])
    else:
        log_line(f"there are no runs in {runs}")
