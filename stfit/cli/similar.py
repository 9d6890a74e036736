import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import log_line, print_json
from stfit.cli.options import Approximate, Column, Device, InputArgument, Json, ModelArgument, Read, Split
from stfit.cli.tables import line_of, print_nearest


def similar_command(
    model: ModelArgument,
    texts: InputArgument,
    query: Annotated[list[str] | None, typer.Option("--query", help="Text to search for; can be repeated.")] = None,
    top: Annotated[int, typer.Option(help="Number of texts per query, or of pairs.", min=1)] = 3,
    column: Column = None,
    split: Split = None,
    read: Read = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File of pairs to write (.jsonl); of a part, a folder. Resumable."),
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="i/N", help="Make part i of N of the comparisons of pairs alone.")
    ] = None,
    approximate: Approximate = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find the closest pairs of texts. With --query, do what `search` does.

    INPUT may also be what `encode` wrote: then those embeddings are searched. With --column, its texts are embedded.

    Example: stfit similar runs/recipe texts.txt --query "how do I reset my password"
    """
    if query and (output or part or approximate):
        raise typer.BadParameter("--output, --part and --approximate are for pairs: leave out --query")
    if part and (output is None or approximate):
        raise typer.BadParameter("--part needs --output, a folder for all parts, and no --approximate")
    from stfit.commands.similar import closest, similar
    from stfit.data.mapping.texts import source_of_texts
    from stfit.data.object_store import local_output, shown
    from stfit.data.part import Part
    from stfit.recipe.read_options import read_options
    from stfit.workflows.text_windows import Inputs

    inputs = Inputs(source_of_texts(texts, split, read_options(read)), column)
    own = Part.parse(part) if part else None
    if output:
        with local_output(output, own) as target:
            result = closest(model, inputs, top, device, approximate=approximate, output=target, part=own)
        result |= {"output": shown(output)}
    elif query:
        result = similar(model, inputs, query, top, device)
    else:
        result = closest(model, inputs, top, device, approximate=approximate)
    if json:
        print_json(result)
    elif query:
        print_nearest(result["queries"])
    else:
        _print_pairs(result.get("pairs", []))
        _print_totals(result)


def _print_pairs(pairs: list[dict[str, Any]]) -> None:
    for pair in pairs:
        first, second = (
            line_of({name[:-1]: cell for name, cell in pair.items() if name.endswith(side)}) for side in ("1", "2")
        )
        sys.stdout.write(f"\n{pair['similarity']:.3f}  {first}\n       {second}\n")


def _print_totals(result: dict[str, Any]) -> None:
    if "output" in result:
        sys.stdout.write(f"{result['output']}: {result['rows']} pairs\n")
    timings = f"{result['seconds_encoding']:.1f} s for the embeddings, {result['seconds_comparing']:.1f} s to compare"
    found = f"; the index finds {result['recall']:.1%} of nearest texts" if "recall" in result else ""
    log_line(f"{result['texts']} distinct texts: {timings}{found}")
