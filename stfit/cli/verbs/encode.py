from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import print_json
from stfit.cli.options import INPUT_HELP, MODEL_HELP, Column, Device, Json, Read, Split
from stfit.events import EncodeEvent, Finished
from stfit.options import EncodeOptions, Precision
from stfit.progress import task

ModelOrNone = Annotated[str | None, typer.Argument(help=MODEL_HELP, metavar="MODEL")]
InputOrNone = Annotated[str | None, typer.Argument(help=INPUT_HELP, metavar="INPUT")]
"""Missing with --join alone."""


def encode_command(
    context: typer.Context,
    model: ModelOrNone = None,
    texts: InputOrNone = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help=".npy, .parquet, .jsonl or .safetensors file, or a folder of shards.")
    ],
    column: Column = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column or selector of ids to write [default: row numbers from 0].")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="COLUMN,...", help="Columns to write beside the embeddings (.parquet, .jsonl, folders)."),
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Write the texts too (.parquet, .jsonl, folders).")
    ] = False,
    split: Split = None,
    read: Read = None,
    prompt_name: Annotated[str | None, typer.Option(help="Prompt of the model to prepend to each text.")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale embeddings to unit length.")] = False,
    truncate_dim: Annotated[int | None, typer.Option(help="Keep the first N dimensions.", min=1)] = None,
    precision: Annotated[Precision, typer.Option(help="Type of the stored numbers.")] = "float32",
    calibration: Annotated[
        Path | None, typer.Option(help="File of ranges for int8 and uint8; computed from the input if missing.")
    ] = None,
    batch_tokens: Annotated[str, typer.Option(help="Maximum number of tokens per batch, or auto.")] = "auto",
    fast: Annotated[
        bool, typer.Option("--fast", help="Compute in bfloat16 and report the similarity to float32.")
    ] = False,
    device: Device = "auto",
    processes: Annotated[
        int, typer.Option(help="Number of processes, which encode a part of the texts each.", min=1)
    ] = 1,
    part: Annotated[
        str | None, typer.Option(metavar="i/N", help="Encode part i of N alone, into a folder of parts.")
    ] = None,
    join: Annotated[Path | None, typer.Option(help="Write the parts of this folder into one output.")] = None,
    json: Json = False,
) -> None:
    """Embed texts. Run the same command again to resume.

    Example: stfit encode runs/recipe texts.txt -o embeddings.npy
    """
    if join is not None:
        if model is not None or part is not None:
            context.fail("--join takes embeddings that are there, and --output: no MODEL, INPUT or --part")
        _join(join, output, json)
        return
    if model is None or texts is None:
        context.fail(f"Missing argument '{'MODEL' if model is None else 'INPUT'}'.")
    if batch_tokens != "auto" and not (batch_tokens.isdecimal() and int(batch_tokens)):
        raise typer.BadParameter(f"--batch-tokens {batch_tokens}: must be a number above 0, or auto")
    if texts == "-" and processes > 1:
        raise typer.BadParameter("only one process can read stdin (-): write the texts to a file")
    if part is not None and processes > 1:
        raise typer.BadParameter("--part is encoded by one process: start one command for each part")
    from stfit.commands.encode import encode
    from stfit.data.mapping.texts import source_of_texts
    from stfit.data.part import Part
    from stfit.recipe.read_options import read_options
    from stfit.workflows.encode.text_windows import inputs_to_keep

    max_tokens = None if batch_tokens == "auto" else int(batch_tokens)
    options = EncodeOptions(prompt_name, normalize, truncate_dim, precision, max_tokens, fast)
    kept = [name.strip() for name in keep.split(",")] if keep else []
    source = source_of_texts(texts, split, read_options(read))
    inputs = inputs_to_keep(source, column, id_column, kept, Part.parse(part) if part else None)
    events = encode(
        model,
        inputs,
        output,
        options,
        calibration=calibration,
        with_text=with_text,
        device=device,
        processes=processes,
    )
    _print_result(_follow(events), json)


def _join(folder: Path, output: Path, as_json: bool) -> None:
    from stfit.commands.join import join_parts

    result = join_parts(folder, output)
    if as_json:
        print_json(result)
        return
    size = f"{result['rows']} embeddings of {result['embedding_dim']} dimensions"
    sys.stdout.write(f"{result['output']}: {size} from {result['parts']} parts\n")


def _follow(events: Iterable[EncodeEvent]) -> dict[str, Any]:
    with task("encoding", of_verb=True) as encoding:
        for event in events:
            if isinstance(event, Finished):
                result = event.result
            else:
                encoding.total = None if event.share is None else 1
                encoding.update(event.share or 0, f"{event.rows} rows  {event.rows_per_second:.0f} rows/s")
    return result


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    resumed = f" ({result['resumed_rows']} from an earlier run)" if result["resumed_rows"] else ""
    cosine = result["cosine_to_float32"]
    fast = "" if cosine is None else f", cosine to float32 at least {cosine:.5f}"
    size = f"{result['rows']} embeddings of {result['embedding_dim']} dimensions"
    sys.stdout.write(f"{result['output']}: {size}{resumed} at {result['rows_per_second']:.0f} rows/s{fast}\n")
