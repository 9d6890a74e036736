from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import log_line, print_json, print_table
from stfit.cli.github_summary import add_to_summary
from stfit.cli.launch import launch_workers
from stfit.cli.options import Json, Overrides, Processes, RecipeArgument, Runs
from stfit.cli.tables import GATE_HEADER, gain_row, gate_row
from stfit.events import Evaluated, Finished, Started, StepInfo, TrainEvent
from stfit.io.display import format_duration
from stfit.progress import task


def train_command(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; an existing run is kept as NAME.1.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an existing run; fail if there is none.")] = False,
    locked: Annotated[
        str | None,
        typer.Option(
            "--locked", metavar="[FILE.lock]", help="Fail if an input differs from FILE [stfit.lock next to RECIPE]."
        ),
    ] = None,
    skip_unchanged: Annotated[
        bool, typer.Option("--skip-unchanged", help="Do not train if the published model has the same inputs.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every value and where it was set; do not train.")
    ] = False,
    runs: Runs = Path("runs"),
    processes: Processes = None,
    json: Json = False,
) -> None:
    """Train a recipe. Run the same command again to resume an interrupted training.

    Example: stfit train recipe.yaml train.epochs=2
    """
    if fresh and resume:
        raise typer.BadParameter("--fresh and --resume are mutually exclusive")
    from stfit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if print_config:
        from stfit.recipe.dump import values_with_origins

        _print_config(values_with_origins(loaded, recipe), json)
        return
    if skip_unchanged:
        from stfit.workflows.train.unchanged import find_unchanged

        if published := find_unchanged(loaded):
            _print_unchanged(published, json)
            return
    from stfit.workflows.check.validate import fail_fast

    fail_fast(loaded.recipe, loaded.origins)
    launch_workers(processes, json)
    from stfit.commands.train import train

    lock = None if locked is None else Path(locked) if locked else recipe.parent / "stfit.lock"
    finished = _follow(train(loaded, runs, fresh=fresh, resume=resume, locked=lock))
    _print_result(finished, json)


def _print_config(values: dict[str, tuple[Any, str]], as_json: bool) -> None:
    if as_json:
        print_json({"values": {key: {"value": value, "origin": origin} for key, (value, origin) in values.items()}})
        return
    from stfit.io.yaml_text import to_inline_yaml

    lines = {f"{key}={to_inline_yaml(value)}": origin for key, (value, origin) in values.items()}
    width = min(60, max(map(len, lines)))
    for line, origin in lines.items():
        sys.stdout.write(f"{line:<{width}}  {origin}\n")


def _print_unchanged(published: dict[str, Any], as_json: bool) -> None:
    log_line(f"nothing to do: {published['repo']} at {published['commit'][:8]} has the same recipe and inputs")
    if as_json:
        print_json(published)


def _follow(events: Iterable[TrainEvent]) -> Finished:
    rows, seconds, evaluated = 0, 0.0, -1
    with task("preparing", of_verb=True) as training:
        for event in events:
            match event:
                case Started():
                    main, total = event.main, event.total_steps
                    training.doing, training.total = "training", total
                    log_line(_describe_start(event))
                case StepInfo():
                    rows, seconds = rows + event.rows, seconds + event.seconds
                    text = _describe_step(event, total, rows / seconds)
                    training.update(event.step, text, event.seconds_left)
                case Evaluated() if event.step > evaluated:  # `train.best` measures its model again after the last step
                    evaluated = event.step
                    values = [f"{name} {event.metrics[name]:.4f}" for name in main if name in event.metrics]
                    if values:
                        log_line(f"step {event.step}: {'  '.join(values)}")
                case Finished():
                    finished = event
    return finished


def _describe_start(event: Started) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in event.dropped.items())
    examples = "a stream" if event.rows is None else f"{event.rows} examples"
    resumed = f", resuming from step {event.first_step}" if event.first_step else ""
    return f"{event.run}: {examples}{f' (dropped: {dropped})' if dropped else ''}, {event.total_steps} steps{resumed}"


def _describe_step(info: StepInfo, total: int, speed: float) -> str:
    """The most important numbers first: a narrow terminal cuts off the rest."""
    return f"step {info.step}/{total}  loss {info.loss:.4f}  {speed:.0f} examples/s  lr {info.learning_rate:.2e}"


def _print_result(event: Finished, as_json: bool) -> None:
    result = event.result
    if event.again:
        log_line(f"{result['run']}: already finished; use --fresh to train again")
    gains = result.get("gains", {})  # results of earlier versions have neither this nor `spent`
    header = ["metric", "before", "after", "gain", "verdict"]
    rows = [
        gain_row(name, result["baseline"].get(name), result["metrics"].get(name), gains.get(name, {}).get("verdict"))
        for name in event.main
    ]
    total = sum(result.get("spent", {}).values())
    speed = result["examples_per_second"]
    pace = f" at {speed:.0f} examples/s" if speed else ""
    duration = f"{result['steps']} steps{pace} in {format_duration(result['seconds'])}, {format_duration(total)} in all"
    gates = [gate_row(gate) for gate in result.get("gate", [])]
    add_to_summary(f"stfit train: {result['run']}", header, rows, duration)
    if gates:
        add_to_summary("gate", GATE_HEADER, gates)
    if as_json:
        print_json(result)
        return
    if rows:
        print_table(header, rows)
    if gates:
        sys.stdout.write("\n")
        print_table(GATE_HEADER, gates)
    sys.stdout.write(f"model: {result['model']} ({duration})\nreport: {result['run']}/report.html\n")
