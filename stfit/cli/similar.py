import sys
from typing import Annotated, Any

import typer

from stfit.cli.console import log_line, print_json
from stfit.cli.options import Column, Device, InputArgument, Json, ModelArgument, Read, Split
from stfit.io.display import escape_controls


def similar_command(
    model: ModelArgument,
    texts: InputArgument,
    query: Annotated[list[str] | None, typer.Option("--query", help="Text to search for; can be repeated.")] = None,
    top: Annotated[int, typer.Option(help="Number of texts per query, or of pairs.", min=1)] = 3,
    column: Column = None,
    split: Split = None,
    read: Read = None,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Search pairs with faiss, for large numbers of texts.")
    ] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find the texts nearest to a query. Without one, find the closest pairs.

    Example: stfit similar runs/recipe texts.txt --query "how do I reset my password"
    """
    from stfit.commands.similar import closest, similar
    from stfit.data.mapping.texts import source_of_texts
    from stfit.recipe.read_options import read_options
    from stfit.workflows.text_windows import Inputs

    inputs = Inputs(source_of_texts(texts, split, read_options(read)), column)
    if query:
        result = similar(model, inputs, query, top, device)
    else:
        result = closest(model, inputs, top, device, approximate=approximate)
    if json:
        print_json(result)
    elif query:
        _print_nearest(result)
    else:
        _print_pairs(result)


def _print_nearest(result: dict[str, Any]) -> None:
    for query in result["queries"]:
        sys.stdout.write(f"\n{escape_controls(query['query'])}\n")
        for neighbor in query["nearest"]:
            sys.stdout.write(f"  {neighbor['similarity']:.3f}  {escape_controls(neighbor['text'])}\n")


def _print_pairs(result: dict[str, Any]) -> None:
    for pair in result["pairs"]:
        first, second = escape_controls(pair["text1"]), escape_controls(pair["text2"])
        sys.stdout.write(f"\n{pair['similarity']:.3f}  {first}\n       {second}\n")
    timings = f"{result['seconds_encoding']:.1f} s to embed, {result['seconds_comparing']:.1f} s to compare"
    log_line(f"{result['texts']} distinct texts: {timings}")
