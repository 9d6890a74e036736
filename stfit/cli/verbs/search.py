import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import log_line, print_json
from stfit.cli.options import Approximate, Column, Device, InputArgument, Json, ModelArgument, Read, Split
from stfit.cli.tables import print_nearest


def search_command(
    model: ModelArgument,
    corpus: InputArgument,
    query: Annotated[list[str] | None, typer.Option("--query", help="Text to search for; can be repeated.")] = None,
    queries: Annotated[
        str | None, typer.Option(help="File or dataset of queries, with their ids in `_id` or `id`.")
    ] = None,
    query_column: Annotated[str | None, typer.Option(help="Column of the queries.")] = None,
    top: Annotated[int, typer.Option(help="Number of texts for each query.", min=1)] = 10,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write: .jsonl, or .trec and .run in the format of trec_eval."),
    ] = None,
    column: Column = None,
    split: Split = None,
    read: Read = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Ranges of embeddings in int8, which `stfit encode` wrote with them.")
    ] = None,
    approximate: Approximate = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find the texts of a corpus that are nearest to each query.

    INPUT is the corpus: texts, or what `encode` wrote. With --column, its texts are embedded.

    Example: stfit search runs/recipe corpus.npy --query "how do I reset my password"
    """
    if not query and not queries:
        raise typer.BadParameter("nothing to search for: --query TEXT, or --queries FILE")
    from stfit.commands.search import search, source_of_queries
    from stfit.data.mapping.texts import source_of_texts
    from stfit.data.object_store import local_output, shown
    from stfit.recipe.read_options import read_options
    from stfit.workflows.encode.text_windows import Inputs

    inputs = Inputs(source_of_texts(corpus, split, read_options(read)), column)
    asked = source_of_queries(queries, query_column) if queries else None
    asking = partial(
        search, model, inputs, query or [], asked, top, device, approximate=approximate, calibration=calibration
    )
    if output:
        with local_output(output) as target:
            result = asking(output=target)
        result |= {"output": shown(output)}
    else:
        result = asking()
    if json:
        print_json(result)
    else:
        _print_result(result)


def _print_result(result: dict[str, Any]) -> None:
    print_nearest(result.get("queries", []))
    if "output" in result:
        sys.stdout.write(f"{result['output']}: the nearest texts of {result['count']} queries\n")
    found = f"; the index finds {result['recall']:.1%} of nearest texts" if "recall" in result else ""
    log_line(f"{result['count']} queries in {result['seconds']:.1f} s{found}")
