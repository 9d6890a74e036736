"""The verbs of the command line: arguments in, exit code out.

Rooms are imported inside the commands, so that `--help` and a wrong argument are answered at once.
"""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from stfit.cli import console, results
from stfit.cli.launch import is_alone, launch
from stfit.cli.options import (
    Column,
    Device,
    InputArgument,
    Json,
    ModelArgument,
    Overrides,
    Page,
    Processes,
    RecipeArgument,
    Runs,
    Split,
)
from stfit.distributed import barrier, launched_world_size

app = typer.Typer(name="stfit", rich_markup_mode=None, pretty_exceptions_enable=False)


def _say_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        console.show_page(f"stfit {version('stfit')}\n", None)
        raise typer.Exit


@app.callback()
def stfit(
    _version: Annotated[
        bool, typer.Option("--version", help="Say which stfit this is.", is_eager=True, callback=_say_version)
    ] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error; anywhere.")] = False,
) -> None:
    """Train sentence-embedding models from YAML recipes."""
    # --debug is taken out before any of this is read: errors of reading it are to be shown with it, too.


class Runtime(StrEnum):
    """What can read an exported model."""

    onnx = "onnx"
    openvino = "openvino"


def _shared_out(processes: int | None, json: bool) -> None:
    """Let so many processes do what this one was asked for, and end with their exit code; or go on, where it is one."""
    if is_alone(processes):
        return
    failure = launch(processes or 1)
    if failure and failure.message:
        console.say_error(failure.name, failure.message, failure.exit_code, json)
    raise typer.Exit(failure.exit_code if failure else 0)


@app.command(epilog="Example: stfit train recipe.yaml train.epochs=2")
def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew; an earlier run is kept as NAME.1.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with an existing run; never start anew.")
    ] = False,
    locked: Annotated[
        str | None,
        typer.Option(
            "--locked", metavar="[FILE.lock]", help="Fail where anything moved since FILE [stfit.lock beside RECIPE]."
        ),
    ] = None,
    skip_unchanged: Annotated[
        bool, typer.Option("--skip-unchanged", help="Train nothing where it would be the published model again.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show every value and where it was said; train nothing.")
    ] = False,
    runs: Runs = Path("runs"),
    processes: Processes = None,
    json: Json = False,
) -> None:
    """Train a recipe; run again, it goes on where it stopped."""
    if fresh and resume:
        raise typer.BadParameter("--fresh and --resume exclude each other")
    from stfit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if print_config:
        from stfit.recipe.dump import values_with_origins

        results.show_config(values_with_origins(loaded, recipe), json)
        return
    if skip_unchanged:
        from stfit.workflows.skip_unchanged import find_unchanged

        if found := find_unchanged(loaded):
            results.show_unchanged(found, json)
            return
    from stfit.workflows.validate import fail_fast

    fail_fast(loaded.recipe, loaded.origins)
    _shared_out(processes, json)
    from stfit.commands.train import train

    lock = None if locked is None else Path(locked) if locked else recipe.parent / "stfit.lock"
    results.show_training(train(loaded, runs, fresh=fresh, resume=resume, locked=lock), json)


@app.command(name="eval", epilog="Example: stfit eval runs/recipe --compare runs/recipe.1")
def evaluate(
    target: Annotated[str, typer.Argument(help="Recipe (its run is measured), run folder, model folder or Hub id.")],
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Recipe whose `eval:` list is run.")] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Run folder, model folder or Hub id to compare with.")
    ] = None,
    runs: Runs = Path("runs"),
    processes: Processes = None,
    json: Json = False,
) -> None:
    """Measure a model with a recipe's evaluators, compare it with another, and hold it against the recipe's gate."""
    from stfit.recipe.load import load_recipe

    is_recipe = target.endswith((".yaml", ".yml"))
    if recipe is None and not is_recipe and (Path(target) / "recipe.yaml").is_file():
        recipe = Path(target) / "resolved.yaml"  # a run folder knows its own evaluators, with absolute paths
    if recipe is None and not is_recipe:
        raise typer.BadParameter(f"say which evaluators: stfit eval {target} --recipe RECIPE")
    measured = str(runs / load_recipe(Path(target)).recipe.name) if is_recipe else target
    if is_recipe and not Path(measured).is_dir():
        raise typer.BadParameter(f"{target} has no run in {measured}: stfit train {target}")
    loaded = load_recipe(recipe or Path(target))
    _shared_out(processes, json)
    from stfit.commands.evaluate import evaluate

    result, main = evaluate(measured, loaded.recipe, compare)
    results.show_evaluation(result, main, json)
    barrier()  # torchrun ends the others when one has failed
    if "error" in result:
        raise typer.Exit(result["error"]["exit_code"])


PRECISIONS = "float32, float16, int8, uint8, binary or ubinary."


@app.command(epilog="Example: stfit encode runs/recipe texts.txt -o embeddings.npy")
def encode(
    model: ModelArgument,
    texts: InputArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help=".npy, .parquet, .jsonl or .safetensors, or a folder for shards.")
    ],
    column: Column = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids to write; default: the number from 0.")] = None,
    with_text: Annotated[bool, typer.Option("--with-text", help="Write the texts too (.parquet, .jsonl).")] = False,
    split: Split = "train",
    prompt_name: Annotated[str | None, typer.Option(help="Prompt of the model to put before each text.")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale embeddings to length 1.")] = False,
    truncate_dim: Annotated[int | None, typer.Option(help="Keep the first N numbers of each embedding.", min=1)] = None,
    precision: Annotated[str, typer.Option(help=PRECISIONS)] = "float32",
    calibration: Annotated[
        Path | None, typer.Option(help="Ranges for int8 and uint8; made from this input where there is none.")
    ] = None,
    batch_tokens: Annotated[str, typer.Option(help="Tokens at once, or auto.")] = "auto",
    fast: Annotated[bool, typer.Option("--fast", help="Matrix products in bfloat16; says what that changes.")] = False,
    device: Device = "auto",
    processes: Processes = None,
    json: Json = False,
) -> None:
    """Embed texts; run again, it goes on where it stopped."""
    from stfit.encoder.export.quantization import PRECISIONS

    if precision not in PRECISIONS:
        raise typer.BadParameter(f"--precision {precision}: is one of {', '.join(PRECISIONS)}")
    if batch_tokens != "auto" and not (batch_tokens.isdecimal() and int(batch_tokens)):
        raise typer.BadParameter(f"--batch-tokens {batch_tokens}: is a number above 0, or auto")
    if texts == "-" and (processes or launched_world_size() or 1) > 1:
        raise typer.BadParameter("- (stdin) can be read by one process only: write the texts to a file")
    _shared_out(processes, json)
    from stfit.commands.encode import EncodeOptions, encode
    from stfit.data.source import Source
    from stfit.workflows.text_windows import Inputs

    most = None if batch_tokens == "auto" else int(batch_tokens)
    choices = EncodeOptions(prompt_name, normalize, truncate_dim, precision, most, fast)
    inputs = Inputs(Source(dataset=texts, split=split), column, id_column)
    events = encode(model, inputs, output, choices, calibration=calibration, with_text=with_text, device=device)
    results.show_encoding(events, json)


@app.command(epilog="Example: stfit export runs/recipe texts.txt --to onnx --int8 -o exported")
def export(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    texts: Annotated[
        str | None, typer.Argument(help="Texts to compare on, as `encode` reads them.", metavar="[INPUT]")
    ] = None,
    to: Annotated[Runtime, typer.Option("--to", help="Runtime that will read the folder.")] = Runtime.onnx,
    int8: Annotated[bool, typer.Option("--int8", help="Write model_int8.onnx, too: smaller, and a bit off.")] = False,
    column: Column = None,
    split: Split = "train",
    json: Json = False,
) -> None:
    """Write a model as a graph for ONNX Runtime or OpenVINO, and say how far and how fast it is."""
    from stfit.commands.export import export
    from stfit.data.source import Source
    from stfit.workflows.text_windows import Inputs

    inputs = None if texts is None else Inputs(Source(dataset=texts, split=split), column)
    results.show_export(export(model, to.value, output, int8, inputs), json)


@app.command(epilog='Example: stfit similar runs/recipe texts.txt --query "how do I reset my password"')
def similar(
    model: ModelArgument,
    texts: InputArgument,
    query: Annotated[
        list[str] | None, typer.Option("--query", help="Text to look for; may be given several times.")
    ] = None,
    top: Annotated[int, typer.Option(help="Most similar texts to show, for each query; or pairs.", min=1)] = 3,
    column: Column = None,
    split: Split = "train",
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Pairs by faiss: for more texts than can be compared one by one.")
    ] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find the texts that are nearest to a query; without one, the closest pairs among all texts."""
    from stfit.commands.similar import closest, similar
    from stfit.data.source import Source
    from stfit.workflows.text_windows import Inputs

    inputs = Inputs(Source(dataset=texts, split=split), column)
    if query:
        results.show_similar(similar(model, inputs, query, top, device), json)
    else:
        results.show_pairs(closest(model, inputs, top, device, approximate=approximate), json)


@app.command(epilog="Example: stfit mine runs/recipe recipe.yaml -o mined.jsonl")
def mine(
    model: ModelArgument,
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .jsonl file of triplets to write.")],
    overrides: Overrides = None,
    corpus: Annotated[
        str | None, typer.Option(help="File or dataset of texts to take negatives from; default: other rows.")
    ] = None,
    column: Column = None,
    ranks: Annotated[
        str, typer.Option(help="FIRST:LAST of the texts nearest to the anchor, known positives left out.")
    ] = "1:100",
    margin: Annotated[float, typer.Option(help="How much less similar than the positive a negative is.")] = 0.0,
    relative_margin: Annotated[float, typer.Option(help="The same as a share of the positive's similarity.")] = 0.05,
    duplicate: Annotated[
        float, typer.Option(help="Texts this similar to the anchor or the positive are left out.")
    ] = 0.95,
    per_row: Annotated[int, typer.Option(help="Most negatives of a row.", min=1)] = 1,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find hard negatives for the pairs of a recipe."""
    first, colon, last = ranks.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise typer.BadParameter(f"--ranks {ranks}: write FIRST:LAST, like 10:50")
    if output.suffix != ".jsonl":
        raise typer.BadParameter(f"{output}: mine writes a .jsonl file")
    from stfit.commands.mine import MiningOptions, mine
    from stfit.data.source import Source
    from stfit.recipe.load import load_recipe

    rules = MiningOptions((int(first), int(last)), margin, relative_margin, duplicate, per_row)
    source = Source(dataset=corpus) if corpus else None
    loaded = load_recipe(recipe, overrides or [])
    results.show_mined(mine(model, loaded.recipe, output, rules, corpus=source, column=column, device=device), json)


@app.command(epilog="Example: stfit report runs/recipe runs/recipe.1")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page; default: RUN/report.html, or comparison.html beside the first."),
    ] = None,
    json: Json = False,
) -> None:
    """Write the report of a run again, or a page that compares several."""
    from stfit.commands.report import report

    results.show_report(report(runs, output), json)


@app.command(name="runs", epilog="Example: stfit runs")
def list_runs(runs: Runs = Path("runs"), json: Json = False) -> None:
    """List run folders, the newest last, with what became of them."""
    from stfit.commands.report import runs_in

    results.show_runs(runs_in(runs), json)


@app.command(epilog="Example: stfit push runs/recipe --repo me/my-encoder")
def push(
    target: Annotated[str, typer.Argument(help="Run folder or model folder.", metavar="RUN_OR_MODEL")],
    repo: Annotated[str | None, typer.Option(help="owner/name, or name; default: the recipe's push.repo.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
    branch: Annotated[str, typer.Option(help="Branch to commit to; made from main where it is missing.")] = "main",
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request in place of a commit.")] = False,
    tag: Annotated[str | None, typer.Option(help="Name the commit.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do all but publish: list the files, ask the gate.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Publish though the gate says no; the card says so.")] = False,
    json: Json = False,
) -> None:
    """Publish a model to the Hub, if the recipe's gate lets it pass."""
    from stfit.commands.push import PushOptions, push

    result = push(target, PushOptions(repo, private, branch, create_pr, tag, dry_run, force))
    results.show_push(result, dry_run, json)
    if "error" in result:
        raise typer.Exit(result["error"]["exit_code"])


@app.command(epilog="Example: stfit check recipe.yaml")
def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option("--strict", help="Make errors of warnings.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Look at all rows of streams and of the Hub.")] = False,
    json: Json = False,
) -> None:
    """Find what is wrong with a recipe and its data, before anything is trained."""
    from stfit.commands.check import check

    result = check(recipe, overrides or [], full=full, strict=strict)
    results.show_check(result, json)
    if "error" in result:
        raise typer.Exit(result["error"]["exit_code"])


@app.command(epilog="Example: stfit fetch recipe.yaml && HF_HUB_OFFLINE=1 stfit train recipe.yaml")
def fetch(recipe: RecipeArgument, overrides: Overrides = None, json: Json = False) -> None:
    """Fetch the base and the datasets of a recipe from the Hub, for a run without a network."""
    from stfit.commands.fetch import fetch
    from stfit.recipe.load import load_recipe

    results.show_fetched(fetch(load_recipe(recipe, overrides or [])), json)


FROM_NOTHING = "file of word vectors, or scratch, static, word_embeddings, bag_of_words"


@app.command(epilog="Example: stfit init ./pairs.csv -o pairs.yaml")
def init(
    dataset: Annotated[str, typer.Argument(help="Hub id, or a file or folder: ./pairs.csv.", metavar="DATASET")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write.")] = Path("recipe.yaml"),
    base: Annotated[str | None, typer.Option(help=f"Model to train: Hub id, folder, {FROM_NOTHING}.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration (subset) of a Hub dataset.")] = None,
    json: Json = False,
) -> None:
    """Look at a dataset and write a recipe for it, with reasons."""
    from stfit.commands.init import DEFAULT_BASE, init

    results.show_init(init(dataset, output, base or DEFAULT_BASE, config), json)


@app.command(epilog="Example: stfit schema -o recipe.schema.json")
def schema(output: Page = None, json: Json = False) -> None:
    """Print the JSON Schema of recipes, for editors."""
    from stfit.recipe.recipe import Recipe
    from stfit.recipe.schema import schema_page

    console.show_page(schema_page(Recipe), output, json)


@app.command(hidden=True, epilog="Example: stfit reference -o recipes.md")  # `make docs` writes it
def reference(output: Page = None) -> None:
    """Print the reference page of recipes."""
    from stfit.recipe.reference import reference_page

    console.show_page(reference_page(), output)
