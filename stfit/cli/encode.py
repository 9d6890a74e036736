from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import print_json
from stfit.cli.launch import launch_workers
from stfit.cli.options import Column, Device, InputArgument, Json, ModelArgument, Processes, Read, Split
from stfit.distributed import launched_world_size
from stfit.events import EncodeEvent, Finished
from stfit.options import EncodeOptions, Precision
from stfit.progress import task


def encode_command(
    model: ModelArgument,
    texts: InputArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help=".npy, .parquet, .jsonl or .safetensors file, or a folder of shards.")
    ],
    column: Column = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column or selector of ids to write [default: row numbers from 0].")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="COLUMN,...", help="Columns to write beside the embeddings (.parquet, .jsonl, shards)."),
    ] = None,
    with_text: Annotated[bool, typer.Option("--with-text", help="Write the texts too (.parquet, .jsonl).")] = False,
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
    processes: Processes = None,
    json: Json = False,
) -> None:
    """Embed texts. Run the same command again to resume.

    Example: stfit encode runs/recipe texts.txt -o embeddings.npy
    """
    if batch_tokens != "auto" and not (batch_tokens.isdecimal() and int(batch_tokens)):
        raise typer.BadParameter(f"--batch-tokens {batch_tokens}: must be a number above 0, or auto")
    if texts == "-" and (processes or launched_world_size() or 1) > 1:
        raise typer.BadParameter("only one process can read stdin (-): write the texts to a file")
    launch_workers(processes, json)
    from stfit.commands.encode import encode
    from stfit.data.mapping.texts import source_of_texts
    from stfit.recipe.read_options import read_options
    from stfit.workflows.text_windows import inputs_to_keep

    max_tokens = None if batch_tokens == "auto" else int(batch_tokens)
    options = EncodeOptions(prompt_name, normalize, truncate_dim, precision, max_tokens, fast)
    kept = [name.strip() for name in keep.split(",")] if keep else []
    inputs = inputs_to_keep(source_of_texts(texts, split, read_options(read)), column, id_column, kept)
    events = encode(model, inputs, output, options, calibration=calibration, with_text=with_text, device=device)
    _print_result(_follow(events), json)


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
