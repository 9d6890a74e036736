import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import log_line, print_json, print_table
from stfit.cli.github_summary import add_to_summary
from stfit.cli.launch import launch_workers
from stfit.cli.options import Json, Overrides, Processes, Runs
from stfit.cli.tables import GATE_HEADER, gain_with_arrow, gate_row
from stfit.distributed import barrier
from stfit.errors import closest_hint
from stfit.io.display import format_interval, format_metric, format_verdict, shorten, single_line

SHOWN = 70
"""Characters of a row whose metric changed."""


def evaluate_command(
    target: Annotated[str, typer.Argument(help="Recipe (evaluates its run), run folder, model folder or Hub id.")],
    overrides: Overrides = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Recipe whose evaluators are run.")] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Run folder, model folder or Hub id to compare with.")
    ] = None,
    details: Annotated[
        Path | None,
        typer.Option(
            "--details", help="File (.jsonl) to write every row to: texts, metrics, ranks of relevant documents."
        ),
    ] = None,
    runs: Runs = Path("runs"),
    processes: Processes = None,
    json: Json = False,
) -> None:
    """Evaluate a model, compare it with another, check the gate.

    Example: stfit eval runs/recipe --compare runs/recipe.1
    """
    from stfit.recipe.load import load_recipe
    from stfit.runtime.run_folder import recipe_of_run

    is_recipe = target.endswith((".yaml", ".yml"))
    if recipe is None and not is_recipe:
        recipe = recipe_of_run(Path(target))
    folder = Path(target).parent
    if not Path(target).exists() and folder.name and folder.is_dir():  # a path, and no id of the Hub
        hint = closest_hint(Path(target).name, [path.name for path in folder.iterdir()])
        raise typer.BadParameter(f"{target} does not exist{f': {hint}' if hint else ''}")
    if recipe is None and not is_recipe:
        raise typer.BadParameter(f"no evaluators given: stfit eval {target} --recipe RECIPE")
    model = str(runs / load_recipe(Path(target), overrides or []).recipe.name) if is_recipe else target
    if is_recipe and not Path(model).is_dir():
        raise typer.BadParameter(f"{target}: there is no run in {model}; train it first: stfit train {target}")
    loaded = load_recipe(recipe or Path(target), overrides or [])
    launch_workers(processes, json)
    from stfit.commands.evaluate import evaluate

    result, main_metrics = evaluate(model, loaded.recipe, compare, details)
    _print_evaluation(result, main_metrics, json)
    barrier()  # torchrun stops the other workers as soon as one has failed
    if "error" in result:
        raise typer.Exit(result["error"]["exit_code"])


def _print_evaluation(result: dict[str, Any], main_metrics: list[str], as_json: bool) -> None:
    metrics = result["metrics"]
    names = _shown(metrics, main_metrics)
    header, rows = ["metric", "value"], [[name, format_metric(metrics[name])] for name in names]
    title = f"stfit eval: {result['model']}"
    if "compare" in result:
        compared = result["compare"]["metrics"]
        header = ["metric", *_columns_of(result), "gain", "95% interval", "verdict"]
        rows = [_comparison_row(name, compared[name]) for name in names if name in compared]
        title += f" and {result['compare']['model']}"
    gates = [gate_row(gate) for gate in result.get("gate", [])]
    add_to_summary(title, header, rows)
    if gates:
        add_to_summary("gate", GATE_HEADER, gates)
    if as_json:
        print_json(result)
        return
    print_table(header, rows)
    if hidden := len(metrics) - len(names) - sum(map(len, result.get("slices", {}).values())):
        log_line(f"{hidden} more metrics with --json")
    for metric, moved in result.get("compare", {}).get("moved", {}).items():
        sys.stdout.write("\n")
        print_table([f"moved most in {metric}", *_columns_of(result)], list(map(_moved_row, moved)))
    for metric, slices in result.get("slices", {}).items():
        sys.stdout.write("\n")
        print_table(
            [f"slices of {metric}", "rows", "value", "95% interval"], [_slice_row(*part) for part in slices.items()]
        )
    if gates:
        sys.stdout.write("\n")
        print_table(GATE_HEADER, gates)
    if "error" in result:
        log_line(f"stfit: {result['error']['message']}")


def _shown(metrics: dict[str, float], main: list[str]) -> list[str]:
    """The main metrics, and then the others of evaluators that do not choose several main ones."""
    of_evaluator = Counter(name.rpartition("/")[0] for name in main)
    others = (name for name in metrics if of_evaluator[name.rpartition("/")[0]] < 2 and "[" not in name)
    return [name for name in dict.fromkeys([*main, *others]) if name in metrics]


def _moved_row(row: dict[str, Any]) -> list[str]:
    text = " | ".join(str(value) for name, value in row.items() if name not in ("row", "value", "other") and value)
    return [shorten(single_line(text), SHOWN), format_metric(row["value"]), format_metric(row["other"])]


def _slice_row(name: str, part: dict[str, Any]) -> list[str]:
    return [name, str(part["rows"]), format_metric(part["value"]), format_interval(part["low"], part["high"], "")]


def _columns_of(result: dict[str, Any]) -> list[str]:
    """The names of the two models: of a run, that of its folder."""
    paths = [Path(result["model"]), Path(result["compare"]["model"])]
    names = [path.parent.name if path.name == "model" else path.name for path in paths]
    return names if len(set(names)) == 2 else ["value", "other"]


def _comparison_row(name: str, compared: dict[str, Any]) -> list[str]:
    values = [format_metric(compared["value"]), format_metric(compared["other"]), gain_with_arrow(compared["gain"])]
    return [name, *values, format_interval(compared["low"], compared["high"]), format_verdict(compared["verdict"])]
