import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import print_json
from stfit.cli.options import Column, Json, ModelArgument, Read, Split


class Runtime(StrEnum):
    onnx = "onnx"
    openvino = "openvino"


def export_command(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    texts: Annotated[
        str | None,
        typer.Argument(help="Texts to compare embeddings on; same formats as for `encode`.", metavar="[INPUT]"),
    ] = None,
    to: Annotated[Runtime, typer.Option("--to", help="Runtime that will load the folder.")] = Runtime.onnx,
    int8: Annotated[bool, typer.Option("--int8", help="Also write model_int8.onnx: smaller and less exact.")] = False,
    column: Column = None,
    split: Split = None,
    read: Read = None,
    json: Json = False,
) -> None:
    """Export a model to ONNX or OpenVINO. Accuracy and speed are measured.

    Example: stfit export runs/recipe texts.txt --to onnx --int8 -o exported
    """
    from stfit.commands.export import export
    from stfit.data.mapping.texts import source_of_texts
    from stfit.recipe.read_options import read_options
    from stfit.workflows.encode.text_windows import Inputs

    inputs = None if texts is None else Inputs(source_of_texts(texts, split, read_options(read)), column)
    result = export(model, to.value, output, int8, inputs)
    if json:
        print_json(result)
    else:
        _print_comparison(result)


def _print_comparison(result: dict[str, Any]) -> None:
    sys.stdout.write(f"{result['output']}: compared on {result['compared']} texts ({result['compared_on']})\n")
    sys.stdout.write(f"  stfit encode: {result['rows_per_second']:.0f} texts/s\n")
    for graph in result["files"]:
        sys.stdout.write(
            f"  {graph['file']}, {graph['mib']:.1f} MiB: {graph['rows_per_second']:.0f} texts/s, "
            f"maximum difference {graph['largest_difference']:.1e}, mean cosine {graph['mean_cosine']:.5f} "
            f"(lowest {graph['lowest_cosine']:.5f})\n"
        )
    sys.stdout.write("\nTo embed texts with it in Python:\n\n")
    sys.stdout.write("".join(f"    {line}\n" for line in result["python"]))
