from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from stfit.cli.console import log_line, print_json
from stfit.cli.options import Json, Overrides, RecipeArgument
from stfit.cli.tables import two_lines


def check_command(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Read all rows of streams and Hub datasets and the weights of a local base; find near-duplicates of "
            "evaluation texts.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Find what is wrong with a recipe and its data before training.

    Example: stfit check recipe.yaml
    """
    from stfit.commands.check import check, result_to_json

    result = check(recipe, overrides or [], full=full, strict=strict)
    if not json:
        for number, sample in enumerate(result.get("samples", []), start=1):
            sys.stdout.write(f"example {number}\n")
            sys.stdout.write("".join(f"{two_lines(f'  {role}: {text}')}\n" for role, text in sample.items()))
        sys.stdout.write(_estimate(result) if "steps" in result else "")
        sys.stdout.flush()  # the problems follow, at the end of the screen
    for kind in ("warning", "error"):
        for problem in result[f"{kind}s"]:
            log_line(f"{kind}[{problem.code}]: {problem}")
    if json:
        print_json(result_to_json(result))
    else:
        counts = [_count(len(result["errors"]), "error"), _count(len(result["warnings"]), "warning")]
        sys.stdout.write(f"{'wrong' if result['errors'] else 'ok'}: {', '.join(counts)}\n")
    if "error" in result:
        raise typer.Exit(result["error"]["exit_code"])


def _estimate(result: dict[str, Any]) -> str:
    from stfit.data.checks.leakage import SHARED

    objectives = [
        f"  {part['share']:.0%} of the batches: {part['loss']} on {part['rows']} examples of {part['dataset']}\n"
        for part in result["objectives"]
    ]
    memory = ""
    if result["memory_range_mib"]:
        low, high = (mib / 1024 for mib in result["memory_range_mib"])
        memory = f"memory: {low:.1f} to {high:.1f} GiB\n"
    evaluation = ""
    if result["evaluation_tokens"]:
        evaluation = (
            f", {_short(result['evaluation_tokens'])} to evaluate ({_count(result['evaluations'], 'evaluation')})"
        )
    most = result["lengths_counted_to"]
    more = {name: "+" if value == most else "" for name, value in result["lengths"].items()}
    lengths = ", ".join(f"{name} {value}{more[name]}" for name, value in result["lengths"].items())
    limit = result["max_seq_length"]
    shared = result["dropped"].get(SHARED)
    left_out = f"; {shared} more are {SHARED} and left out" if shared else ""
    return (
        f"{result['rows']} examples ({result['looked_at']}{left_out})\n"
        f"{''.join(objectives if len(objectives) > 1 else [])}"
        f"{result['steps']} steps\n"
        f"tokens: {_short(result['tokens'])} to train on{evaluation}\n"
        f"{memory}"
        f"lengths in {result['counted']}: {lengths}{f'; truncated at {limit}' if limit else ''}\n"
    )


def _short(number: int) -> str:
    """12, 3.4k, 1.2M, ..., with two digits."""
    for factor, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= factor:
            return f"{number / factor:.{1 if number < 10 * factor else 0}f}{unit}"
    return str(number)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
