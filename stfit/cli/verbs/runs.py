from collections.abc import Callable
from pathlib import Path
from typing import Any

from stfit.cli.console import log_line, print_json, print_table
from stfit.cli.options import Json, Runs
from stfit.io.display import format_metric, format_verdict

COLUMNS = ["run", "state", "metric", "before", "after", "verdict", "date", "recipe"]
FORMATS: dict[str, Callable[[Any], str]] = {"before": format_metric, "after": format_metric, "verdict": format_verdict}


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
        [FORMATS[name](entry[name]) if name in FORMATS else entry[name] or "" for name in COLUMNS] for entry in entries
    ]
    if rows:
        print_table(COLUMNS, rows, text_columns=[name for name in COLUMNS if FORMATS.get(name) != format_metric])
    else:
        log_line(f"there are no runs in {runs}")
