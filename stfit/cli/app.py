"""The Typer app: a verb is one file in `verbs/` and one line here.

Verbs import the rooms they need when they are called, so that `--help` and usage errors stay fast.
"""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from stfit.cli.verbs.check import check_command
from stfit.cli.verbs.encode import encode_command
from stfit.cli.verbs.evaluate import evaluate_command
from stfit.cli.verbs.export import export_command
from stfit.cli.verbs.fetch import fetch_command
from stfit.cli.verbs.generate import generate_command
from stfit.cli.verbs.init import init_command
from stfit.cli.verbs.mine import mine_command
from stfit.cli.verbs.push import push_command
from stfit.cli.verbs.reference import reference_command
from stfit.cli.verbs.report import report_command
from stfit.cli.verbs.runs import runs_command
from stfit.cli.verbs.schema import schema_command
from stfit.cli.verbs.search import search_command
from stfit.cli.verbs.similar import similar_command
from stfit.cli.verbs.sweep import sweep_command
from stfit.cli.verbs.train import train_command

app = typer.Typer(name="stfit", rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("train")(train_command)
app.command("sweep")(sweep_command)
app.command("eval")(evaluate_command)
app.command("encode")(encode_command)
app.command("export")(export_command)
app.command("search")(search_command)
app.command("similar")(similar_command)
app.command("generate")(generate_command)
app.command("mine")(mine_command)
app.command("report")(report_command)
app.command("runs")(runs_command)
app.command("push")(push_command)
app.command("check")(check_command)
app.command("fetch")(fetch_command)
app.command("init")(init_command)
app.command("schema")(schema_command)
app.command("reference")(reference_command)


def _print_version(is_given: bool) -> None:
    if is_given:
        sys.stdout.write(f"stfit {version('stfit')}\n")
        raise typer.Exit


@app.callback()
def stfit(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback if a command fails; can be given anywhere.")
    ] = False,
) -> None:
    """Train sentence-embedding models from YAML recipes."""
    # main() removes --debug before the arguments are parsed; it is declared here for `stfit --help`.
