import sys
from pathlib import Path
from typing import Annotated

import typer

from stfit.cli.console import print_json
from stfit.cli.options import Json


def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Page to write [default: RUN/report.html, or comparison.html next to the first run]."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against", help="Which of the runs the others are compared with [default: the first].", metavar="RUN"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write the report of a run, or a page that compares several.

    Example: stfit report runs/recipe runs/recipe.1
    """
    from stfit.commands.report import report

    result = report(runs, output, against)
    if json:
        print_json(result)
    else:
        sys.stdout.write(f"{result['output']}: written\n")
