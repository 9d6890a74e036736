"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[Path, typer.Argument(help="Recipe file (.yaml).", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as train.epochs=1, eval.0.split=test or ~gate."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds the run folders.")]
Processes = Annotated[
    int | None, typer.Option("--processes", help="Number of worker processes, started with torchrun.", min=1)
]
MODEL_HELP = "Run folder, model folder or Hub id."
INPUT_HELP = "Texts: .txt, .jsonl, .json, .csv, .tsv, .parquet, Hub id, or - for stdin."
ModelArgument = Annotated[str, typer.Argument(help=MODEL_HELP, metavar="MODEL")]
InputArgument = Annotated[str, typer.Argument(help=INPUT_HELP, metavar="INPUT")]
Column = Annotated[
    str | None,
    typer.Option(help="Column that holds the texts, or a selector: set.query, set.pos[*], '{title} {text}'."),
]
Read = Annotated[
    list[str] | None,
    typer.Option("--read", metavar="KEY=VALUE", help="How to read a text file: encoding=cp1252, delimiter=';'."),
]
Split = Annotated[
    str | None, typer.Option(help="Split of the dataset [default: train, or the corpus of a BEIR folder].")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")]
Approximate = Annotated[
    bool,
    typer.Option("--approximate", help="Search an index (faiss), and tell which share of the nearest texts it finds."),
]
Page = Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of stdout.")]
