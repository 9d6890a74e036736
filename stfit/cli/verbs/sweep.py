import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import log_line, print_json, print_table
from stfit.cli.options import Json, RecipeArgument, Runs
from stfit.cli.tables import GATE_HEADER, gate_row
from stfit.io.display import format_metric


def sweep_command(
    recipe: RecipeArgument,
    overrides: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE,VALUE...", help="Values to combine, such as train.learning_rate=1e-5,2e-5 seed=1,2,3."
        ),
    ],
    metric: Annotated[
        str | None, typer.Option(help="Metric that decides [default: train.best, or the first main one].")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Train every combination of some values, one after the other, and compare them over their seeds.

    Run the same command again to resume.

    Example: stfit sweep recipe.yaml train.learning_rate=1e-5,2e-5,5e-5 seed=1,2,3
    """
    from stfit.commands.sweep import sweep

    result = sweep(recipe, overrides, runs, metric, log_line)
    if json:
        print_json(result)
    else:
        _print_result(result)
    if "error" in result:
        raise typer.Exit(result["error"]["exit_code"])


def _print_result(result: dict[str, Any]) -> None:
    settings = sorted(result["settings"], key=lambda each: -(each["mean"] or 0.0))
    if settings and result["metric"]:
        keys = list(settings[0]["values"])
        print_table([*keys, "seeds", result["metric"], "95% interval"], [_row(each) for each in settings])
    if "gate" in result:
        sys.stdout.write("\n")
        print_table(GATE_HEADER, list(map(gate_row, result["gate"])))
    for name in ("report", "runs"):
        if name in result:
            sys.stdout.write(f"{name}: {result[name]}\n")
    if "best" in result:
        sys.stdout.write(f"best: {result['best']['recipe']}\n")
    if "error" in result:
        log_line(f"stfit: {result['error']['message']}")


def _row(setting: dict[str, Any]) -> list[str]:
    half = setting["half_width"]
    interval = "" if half is None else f"± {half:.4f}"
    return [*setting["values"].values(), str(len(setting["scores"])), format_metric(setting["mean"]), interval]
