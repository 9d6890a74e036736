import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import log_line, print_json, print_table
from stfit.cli.github_summary import add_to_summary
from stfit.cli.options import Json
from stfit.cli.tables import GATE_HEADER, gate_row


def push_command(
    target: Annotated[str, typer.Argument(help="Run folder or model folder.", metavar="RUN_OR_MODEL")],
    repo: Annotated[str | None, typer.Option(help="owner/name or name [default: the recipe's push.repo].")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create the repository as private.")] = False,
    branch: Annotated[str, typer.Option(help="Branch to commit to; created from main if it is missing.")] = "main",
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    tag: Annotated[str | None, typer.Option(help="Tag for the commit.")] = None,
    license: Annotated[str | None, typer.Option(help="License for the card [default: push.license].")] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Language for the card; repeatable [default: push.language].")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="File of int8 ranges, as `encode` writes it, to publish with the model.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the gate and list the files; publish nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Publish even if the gate fails; the model card mentions it.")
    ] = False,
    json: Json = False,
) -> None:
    """Publish a model to the Hub if it passes the recipe's gate.

    Example: stfit push runs/recipe --repo me/my-encoder
    """
    from stfit.commands.push import PushOptions, push

    languages = tuple(language or ())
    options = PushOptions(repo, private, branch, create_pr, tag, license, languages, calibration, dry_run, force)
    result = push(target, options)
    _print_result(result, dry_run, json)
    if "error" in result:
        raise typer.Exit(result["error"]["exit_code"])


def _print_result(result: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    gates = [gate_row(gate) for gate in result.get("gate", [])]
    outcome = "published" if result["changed"] else "not published" if "error" in result else "nothing to do"
    add_to_summary(f"stfit push: {result['repo']}", GATE_HEADER, gates, f"{outcome}; commit {result['commit']}")
    if as_json:
        print_json(result)
        return
    if gates:
        print_table(GATE_HEADER, gates)
    if "error" in result:
        log_line(f"stfit: {result['error']['message']}")
        return
    if dry_run:
        sys.stdout.write("".join(f"would add     {path}\n" for path in result["add"]))
        sys.stdout.write("".join(f"would delete  {path}\n" for path in result["delete"]))
        return
    tag = f", tagged {result['tag']}" if result.get("tag") else ""
    sys.stdout.write(f"{result['pull_request'] or result['repo']}: {outcome}, commit {result['commit']}{tag}\n")
