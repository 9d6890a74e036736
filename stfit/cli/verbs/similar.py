import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import log_line, print_json
from stfit.cli.options import Approximate, Column, Device, InputArgument, Json, ModelArgument, Read, Split
from stfit.cli.tables import line_of, print_nearest, print_similar


def similar_command(
    model: ModelArgument,
    texts: InputArgument,
    query: Annotated[list[str] | None, typer.Option("--query", help="Text to search for; can be repeated.")] = None,
    clusters: Annotated[
        float | None,
        typer.Option(
            metavar="COSINE", help="Find groups of texts with at least this cosine to one of them.", min=-1, max=1
        ),
    ] = None,
    min_size: Annotated[int | None, typer.Option(help="Texts of a cluster, at least [default: 10].", min=1)] = None,
    top: Annotated[
        int, typer.Option(help="Number of texts per query, of pairs, or of texts shown per cluster.", min=1)
    ] = 3,
    column: Column = None,
    split: Split = None,
    read: Read = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File of pairs or clusters to write (.jsonl). Pairs: resumable; of a part, a folder."
        ),
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="i/N", help="Make part i of N of the comparisons of pairs alone.")
    ] = None,
    approximate: Approximate = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find the closest pairs of texts, or clusters of similar ones. With --query, do what `search` does.

    INPUT may also be what `encode` wrote: then those embeddings are searched. With --column, its texts are embedded.

    Example: stfit similar runs/recipe texts.txt --clusters 0.8
    """
    _require_one_task(query, clusters, min_size, output, part, approximate)
    from stfit.commands.similar import MIN_SIZE, closest, communities, similar
    from stfit.data.mapping.texts import source_of_texts
    from stfit.data.object_store import local_output, shown
    from stfit.data.part import Part
    from stfit.recipe.read_options import read_options
    from stfit.workflows.encode.text_windows import Inputs

    inputs = Inputs(source_of_texts(texts, split, read_options(read)), column)
    own = Part.parse(part) if part else None
    if clusters is not None:
        with local_output(output, None) if output else nullcontext() as target:
            result = communities(model, inputs, clusters, min_size or MIN_SIZE, device, target)
        result |= {"output": shown(output)} if output else {}
    elif output:
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
    elif clusters is not None:
        _print_clusters(result, top)
    else:
        _print_pairs(result.get("pairs", []))
        _print_totals(result)


def _require_one_task(
    query: list[str] | None,
    clusters: float | None,
    min_size: int | None,
    output: Path | None,
    part: str | None,
    approximate: bool,
) -> None:
    if query and (output or part or approximate):
        raise typer.BadParameter("--output, --part and --approximate are for pairs: leave out --query")
    if clusters is not None and (query or part or approximate):
        raise typer.BadParameter("--clusters compares all texts: leave out --query, --part and --approximate")
    if min_size is not None and clusters is None:
        raise typer.BadParameter("--min-size is for --clusters COSINE")
    if part and (output is None or approximate):
        raise typer.BadParameter("--part needs --output, a folder for all parts, and no --approximate")


def _print_pairs(pairs: list[dict[str, Any]]) -> None:
    for pair in pairs:
        first, second = (
            line_of({name[:-1]: cell for name, cell in pair.items() if name.endswith(side)}) for side in ("1", "2")
        )
        sys.stdout.write(f"\n{pair['similarity']:.3f}  {first}\n       {second}\n")


def _print_clusters(result: dict[str, Any], top: int) -> None:
    for cluster in result.get("clusters", []):
        sys.stdout.write(f"\n{cluster['size']} texts\n")
        print_similar(cluster["members"][:top])
    if "output" in result:
        sys.stdout.write(f"{result['output']}: {result['rows']} clusters\n")
    timings = f"{result['seconds_encoding']:.1f} s for the embeddings, {result['seconds_comparing']:.1f} s to compare"
    log_line(f"{result['clustered']} of {result['texts']} distinct texts are in clusters: {timings}")


def _print_totals(result: dict[str, Any]) -> None:
    if "output" in result:
        sys.stdout.write(f"{result['output']}: {result['rows']} pairs\n")
    timings = f"{result['seconds_encoding']:.1f} s for the embeddings, {result['seconds_comparing']:.1f} s to compare"
    found = f"; the index finds {result['recall']:.1%} of nearest texts" if "recall" in result else ""
    log_line(f"{result['texts']} distinct texts: {timings}{found}")
