import sys
from pathlib import Path
from typing import Annotated

import typer

from stfit.cli.console import print_json
from stfit.cli.options import Json, Read
from stfit.io.display import escape_controls

BASE_HELP = "Model to train: Hub id, folder, file of word vectors, or scratch, static, word_embeddings, bag_of_words."


def init_command(
    dataset: Annotated[str, typer.Argument(help="Hub id, or a file or folder: ./pairs.csv.", metavar="DATASET")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Recipe to write.")] = Path("recipe.yaml"),
    base: Annotated[str | None, typer.Option(help=BASE_HELP)] = None,
    config: Annotated[str | None, typer.Option(help="Configuration (subset) of a Hub dataset.")] = None,
    read: Read = None,
    json: Json = False,
) -> None:
    """Inspect a dataset and write a commented recipe for it.

    Example: stfit init ./pairs.csv -o pairs.yaml
    """
    from stfit.commands.init import DEFAULT_BASE, init
    from stfit.recipe.read_options import read_options

    result = init(dataset, output, base or DEFAULT_BASE, config, read_options(read))
    if json:
        print_json(result)
        return
    recipe = result["recipe"]
    sys.stdout.write(f"{recipe}: {result['format']}, {result['loss']}\n")
    sys.stdout.write("".join(f"  {escape_controls(reason)}\n" for reason in result["reasons"]))
    sys.stdout.write(f"Next: stfit check {recipe}\n")
