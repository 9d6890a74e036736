"""The command line: arguments in, exit code out.

Rooms are imported inside the commands, so that `--help` and a wrong argument are answered at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from stfit.cli import console
from stfit.errors import InterruptedRun

app = typer.Typer(
    name="stfit",
    help="Train sentence-embedding models from YAML recipes.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RecipeArgument = Annotated[Path, typer.Argument(help="Recipe file (.yaml).", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides: train.epochs=1, eval.0.split=test, ~gate."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; everything else on stderr.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds the run folders.")]
ModelArgument = Annotated[str, typer.Argument(help="Run folder, model folder or Hub id.", metavar="MODEL")]


@app.command(epilog="Example: stfit train recipe.yaml train.epochs=1")
def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew; an earlier run is kept as NAME.1.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with an existing run; never start anew.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show every value and where it was said; train nothing.")
    ] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Train a recipe; run again, it goes on where it stopped."""
    if fresh and resume:
        raise typer.BadParameter("--fresh and --resume exclude each other")
    from stfit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if print_config:
        from stfit.recipe.resolved import origin_of_values

        console.show_config(origin_of_values(loaded, recipe), json)
        return
    from stfit.commands.train import train

    console.show_training(train(loaded, runs, fresh=fresh, resume=resume), json)


@app.command(name="eval", epilog="Example: stfit eval runs/quickstart --recipe recipes/quickstart.yaml")
def evaluate(
    target: Annotated[str, typer.Argument(help="Recipe (its run is measured), run folder, model folder or Hub id.")],
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Recipe whose `eval:` list is run.")] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Measure a model with a recipe's evaluators."""
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
    from stfit.commands.evaluate import evaluate

    result, main = evaluate(measured, loaded.recipe)
    console.show_evaluation(result, main, json)


@app.command(epilog="Example: stfit encode runs/quickstart texts.txt -o embeddings.npy")
def encode(
    model: ModelArgument,
    texts: Annotated[Path, typer.Argument(help="A .txt file, one text a line.", metavar="INPUT")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npy file to write.")],
    prompt_name: Annotated[str | None, typer.Option(help="Prompt of the model to put before each text.")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale embeddings to length 1.")] = False,
    truncate_dim: Annotated[int | None, typer.Option(help="Keep the first N numbers of each embedding.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = "auto",
    json: Json = False,
) -> None:
    """Embed texts."""
    from stfit.commands.encode import encode

    console.show_encoded(
        encode(
            model, texts, output, prompt_name=prompt_name, normalize=normalize, truncate_dim=truncate_dim, device=device
        ),
        json,
    )


@app.command(epilog='Example: stfit similar runs/quickstart recipes/data/questions.txt --query "cancel my plan"')
def similar(
    model: ModelArgument,
    texts: Annotated[Path, typer.Argument(help="A .txt file, one text a line.", metavar="INPUT")],
    query: Annotated[list[str], typer.Option("--query", help="Text to look for; may be given several times.")],
    top: Annotated[int, typer.Option(help="Most similar lines to show for each query.", min=1)] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = "auto",
    json: Json = False,
) -> None:
    """Find the texts that are nearest to a query."""
    from stfit.commands.similar import similar

    console.show_similar(similar(model, texts, query, top, device), json)


@app.command(epilog="Example: stfit check recipe.yaml")
def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option("--strict", help="Make errors of warnings.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Look at all rows of datasets on the Hub.")] = False,
    json: Json = False,
) -> None:
    """Find what is wrong with a recipe and its data, before anything is trained."""
    from stfit.commands.check import check

    result = check(recipe, overrides or [], full=full, strict=strict)
    console.show_check(result, json)
    if "error" in result:
        raise typer.Exit(result["error"]["exit_code"])


@app.command(epilog="Example: stfit init ./pairs.csv -o pairs.yaml")
def init(
    dataset: Annotated[str, typer.Argument(help="Hub id, or a file or folder: ./pairs.csv.", metavar="DATASET")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write.")] = Path("recipe.yaml"),
    base: Annotated[str | None, typer.Option(help="Model to train: Hub id, folder, or scratch.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration (subset) of a Hub dataset.")] = None,
    json: Json = False,
) -> None:
    """Look at a dataset and write a recipe for it, with reasons."""
    from stfit.commands.init import DEFAULT_BASE, init

    console.show_init(init(dataset, output, base or DEFAULT_BASE, config), json)


Page = Annotated[Path | None, typer.Option("--output", "-o", help="File to write, in place of stdout.")]


@app.command(epilog="Example: stfit schema -o recipe.schema.json")
def schema(output: Page = None, json: Json = False) -> None:
    """Print the JSON Schema of recipes, for editors."""
    from stfit.recipe.recipe import Recipe
    from stfit.recipe.schema import schema_page

    console.show_page(schema_page(Recipe), output, json)


@app.command(hidden=True)  # `make docs` writes it
def reference(output: Page = None) -> None:
    """Print the reference page of recipes."""
    from stfit.recipe.reference import reference_page

    console.show_page(reference_page(), output)


def main() -> NoReturn:
    """Run the command line; every failure becomes a message and an exit code, a traceback only with --debug."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    console.start_logging()
    try:
        sys.exit(app(arguments, standalone_mode=False, prog_name="stfit"))
    except (Exception, InterruptedRun) as error:
        if debug:
            console.show_traceback(error)
        sys.exit(console.show_error(error, as_json="--json" in arguments))
