import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import print_json
from stfit.cli.options import Approximate, Column, Device, Json, ModelArgument, Overrides, Read, RecipeArgument
from stfit.options import MiningOptions

MAX_MARGIN = 2.0
SCORED = "For the losses margin_mse and distill_kl_div, add `scores: scores` to its columns.\n"


def mine_command(
    model: ModelArgument,
    recipe: RecipeArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File of triplets to write (.jsonl); of a part, a folder.")
    ],
    overrides: Overrides = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="File or dataset to take negatives from, or what `encode --with-text` made of it [default: the "
            "recipe's other rows]."
        ),
    ] = None,
    column: Column = None,
    read: Read = None,
    ranks: Annotated[
        str, typer.Option(help="FIRST:LAST: range of nearest neighbors to choose from, known positives excluded.")
    ] = "1:100",
    margin: Annotated[
        float,
        typer.Option(
            help="Minimum difference to the similarity of the anchor's least similar positive; with --reranker, to its "
            "score."
        ),
    ] = 0.0,
    relative_margin: Annotated[
        float, typer.Option(help="The same as a fraction of that similarity.", min=0, max=1)
    ] = 0.05,
    duplicate: Annotated[
        float, typer.Option(help="Exclude texts at least this similar to the anchor or the positive.", min=-1)
    ] = 0.95,
    reranker: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Cross-encoder that scores the pairs and their neighbors: the margins apply to its scores, which are "
            "written as the column `scores`.",
        ),
    ] = None,
    per_row: Annotated[int, typer.Option(help="Maximum number of negatives per row.", min=1)] = 1,
    part: Annotated[str | None, typer.Option(metavar="i/N", help="Mine for part i of N of the pairs alone.")] = None,
    approximate: Approximate = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Mine hard negatives for the pairs of a recipe. Run the same command again to resume.

    Example: stfit mine runs/recipe recipe.yaml -o mined.jsonl
    """
    first, colon, last = ranks.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise typer.BadParameter(f"--ranks {ranks}: write FIRST:LAST, such as 10:50")
    if reranker is None and abs(margin) > MAX_MARGIN:
        raise typer.BadParameter(f"--margin {margin:g}: cosines differ by at most {MAX_MARGIN:g}")
    options = MiningOptions((int(first), int(last)), margin, relative_margin, duplicate, per_row, reranker)
    from stfit.commands.mine import mine
    from stfit.data.mapping.texts import source_of_texts
    from stfit.data.object_store import local_output, shown
    from stfit.data.part import Part
    from stfit.recipe.load import load_recipe
    from stfit.recipe.read_options import read_options

    source = source_of_texts(corpus, None, read_options(read)) if corpus else None
    loaded = load_recipe(recipe, overrides or [])
    own = Part.parse(part) if part else None
    with local_output(output, own) as target:
        result = mine(
            model,
            loaded.recipe,
            target,
            options,
            corpus=source,
            corpus_column=column,
            device=device,
            part=own,
            approximate=approximate,
        )
    result |= {"output": shown(output)}
    if json:
        print_json(result)
    else:
        _print_result(result)


def _print_result(result: dict[str, Any]) -> None:
    if not result["rows"]:
        sys.stdout.write(f"{result['output']}: no row of this part has a negative\n")
        return
    negatives, positives = result["mean_negative_score"], result["mean_positive_score"]
    dropped = f"; {result['rows_without']} rows without a negative were dropped" if result["rows_without"] else ""
    fewer, missing = result["rows_with_fewer"], result["negatives_missing"]
    dropped += f"; {fewer} rows have fewer than asked for" if fewer else ""
    dropped += f": {missing} negatives are missing in all" if missing else ""
    if dropped:
        dropped += ". For more, lower --relative-margin or --margin, widen --ranks, or raise --duplicate"
    sys.stdout.write(
        f"{result['output']}: {result['negatives']} negatives in {result['rows']} rows "
        f"(mean cosine {negatives:.3f}, positives {positives:.3f}){dropped}\n"
        f"To train on them, put this into a recipe in the same folder: {result['data']}\n"
        f"{SCORED if result['reranked'] else ''}"
    )
