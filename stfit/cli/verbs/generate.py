import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stfit.cli.console import print_json
from stfit.cli.options import Column, Device, Json, Read, Split
from stfit.io.display import escape_controls
from stfit.options import GenerationOptions

CORPUS_HELP = "Folder of documents (.txt, .md), or texts as `encode` reads them: a file or a Hub id."
METHOD_HELP = "title, crop, sentence, seq2seq or endpoint; may be given several times."


def generate_command(
    corpus: Annotated[str, typer.Argument(help=CORPUS_HELP, metavar="CORPUS")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of pairs to write (.jsonl).")],
    method: Annotated[list[str], typer.Option("--method", help=METHOD_HELP)],
    per_passage: Annotated[int | None, typer.Option(help="Pairs of each passage.", min=1)] = None,
    keep: Annotated[
        float | None,
        typer.Option(help="sentence: share of the pairs whose passage keeps the sentence.", min=0, max=1),
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="seq2seq: Hub id or folder of a T5-like model. endpoint: name of the model.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Server with the OpenAI chat protocol: http://localhost:8000/v1. Key: OPENAI_API_KEY."),
    ] = None,
    prompt: Annotated[
        Path | None, typer.Option(help="File with what the model reads: {passage}, {title}, {count}, {examples}.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="endpoint: .jsonl file with anchor and positive, shown to the model.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of a model that writes.", min=0)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Of what a model writes.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="seq2seq: passages at once.", min=1)] = None,
    requests: Annotated[int | None, typer.Option(help="endpoint: requests at once.", min=1)] = None,
    timeout: Annotated[float | None, typer.Option(help="endpoint: seconds for one answer.", min=0.1)] = None,
    column: Column = None,
    title_column: Annotated[str, typer.Option(help="Column that holds the titles.")] = "title",
    split: Split = None,
    read: Read = None,
    passage_words: Annotated[
        int | None, typer.Option(help="Words of a passage [default: 120 of a document; rows are not split].", min=1)
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Words that a passage has in common with the one before [default: 20].", min=0)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Take the first N passages.", min=1)] = None,
    words: Annotated[str, typer.Option(help="MIN:MAX: words of an anchor.")] = "2:128",
    language: Annotated[
        str | None, typer.Option(help="Keep pairs in this language: en, de, ... (extra `language`).")
    ] = None,
    not_in: Annotated[Path | None, typer.Option(help="Recipe whose evaluators' texts are left out.")] = None,
    round_trip: Annotated[
        int | None, typer.Option(help="Keep pairs whose passage is among the K that a model finds.", metavar="K", min=1)
    ] = None,
    retriever: Annotated[str | None, typer.Option(help="Model of the round trip.", metavar="MODEL")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 42,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Generate pairs to train on from documents. Run the same command again to resume.

    Example: stfit generate ./docs -o pairs.jsonl --method title --method crop
    """
    fewest, colon, most = words.partition(":")
    if not (colon and fewest.isdecimal() and most.isdecimal()):
        raise typer.BadParameter(f"--words {words}: write MIN:MAX, such as 2:64")
    from stfit.commands.generate import generate
    from stfit.generation.registry import choose_generators
    from stfit.recipe.load import load_recipe
    from stfit.recipe.read_options import read_options
    from stfit.workflows.generate.passages import corpus_of, read_examples, read_prompt

    options = GenerationOptions(seed, (int(fewest), int(most)), language, round_trip, retriever)
    settings = {
        "per_passage": per_passage,
        "keep": keep,
        "generator": generator,
        "endpoint": endpoint,
        "prompt": prompt and read_prompt(prompt),
        "examples": examples and read_examples(examples),
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "requests": requests,
        "timeout": timeout,
    }
    methods = choose_generators(method, {key: value for key, value in settings.items() if value is not None})
    result = generate(
        corpus_of(corpus, split, read_options(read), column, title_column, passage_words, overlap, limit),
        output,
        methods,
        options,
        not_in=load_recipe(not_in, []).recipe if not_in else None,
        device=device,
    )
    if json:
        print_json(result)
    else:
        _print_result(result)


def _print_result(result: dict[str, Any]) -> None:
    by_method = ", ".join(f"{name} {count:,}" for name, count in result["rows_by_method"].items())
    lines = [f"{result['output']}: {result['rows']:,} pairs of {result['passages']:,} passages ({by_method})"]
    lines += [f"{name}: no pair of {count:,} passages" for name, count in result["passages_without"].items() if count]
    for reason, left_out in result["dropped"].items():
        shown = "; ".join(map(repr, left_out["examples"]))
        lines.append(f"left out, {reason}: {left_out['rows']:,}, such as {shown}")
    if answers := result["answers"]:
        lines.append("answers: " + ", ".join(f"{count:,} {name}" for name, count in answers.items() if count))
    lines.append(f"To train on them, put this into a recipe in the same folder: {result['data']}")
    sys.stdout.write("".join(f"{escape_controls(line)}\n" for line in lines))
