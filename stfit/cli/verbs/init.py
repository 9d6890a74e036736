import sys
from pathlib import Path
from typing import Annotated

import typer

from stfit.cli.console import print_json
from stfit.cli.options import Json, Read
from stfit.io.display import escape_controls

BASE_HELP = "Model to train: Hub id, folder, file of word vectors, or scratch, static, word_embeddings, bag_of_words."


def init_command(
    dataset: Annotated[
        str | None, typer.Argument(help="Hub id, or a file or folder: ./pairs.csv.", metavar="DATASET")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Recipe to write [default: recipe.yaml], or folder for the example."),
    ] = None,
    base: Annotated[str | None, typer.Option(help=BASE_HELP)] = None,
    config: Annotated[str | None, typer.Option(help="Configuration (subset) of a Hub dataset.")] = None,
    read: Read = None,
    example: Annotated[
        bool, typer.Option("--example", help="Write the recipe of the quickstart and its data instead.")
    ] = False,
    json: Json = False,
) -> None:
    """Inspect a dataset and write a commented recipe for it.

    Example: stfit init ./pairs.csv -o pairs.yaml
    """
    if example == (dataset is not None):
        raise typer.BadParameter("name a dataset, or write --example alone")
    if example and (base or config or read):
        raise typer.BadParameter("--base, --config and --read are for a recipe of your own data, not for --example")
    from stfit.commands.init import DEFAULT_BASE, init, write_example
    from stfit.recipe.read_options import read_options

    if dataset is None:
        result = write_example(output or Path())
    else:
        result = init(dataset, output or Path("recipe.yaml"), base or DEFAULT_BASE, config, read_options(read))
    if json:
        print_json(result)
        return
    if example:
        sys.stdout.write(f"{result['recipe']}: the recipe of the quickstart\nNext: stfit train {result['recipe']}\n")
        return
    recipe = result["recipe"]
    sys.stdout.write(f"{recipe}: {result['format']}, {result['loss']}\n")
    sys.stdout.write("".join(f"  {escape_controls(reason)}\n" for reason in result["reasons"]))
    sys.stdout.write(f"Next: stfit check {recipe}\n")
