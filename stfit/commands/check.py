"""`stfit check`: what `train` does before its first step. It imports torch only for a base that is right so far."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stfit.data.batching.batches import TokenTable, tokenize_examples
from stfit.data.batching.shuffle_buffer import read_examples
from stfit.data.checks.compatibility import check_kind
from stfit.data.checks.lengths import estimate_tokens
from stfit.data.mapping.examples import Examples, count_dropped
from stfit.data.reading.load_table import open_blocks
from stfit.data.reading.split import Preview
from stfit.data.source import Source, is_remote
from stfit.encoder.config import Model
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.folder.resolve import is_local
from stfit.encoder.prompts import prompt_name, with_built_in
from stfit.encoder.tokenizer import FileTokenizer, Tokenizer
from stfit.errors import DataError, RecipeError
from stfit.evaluation.base import Benchmark
from stfit.lazy import lazy
from stfit.losses.base import CrossEncoderTeacher
from stfit.recipe.load import load_recipe
from stfit.recipe.marked_yaml import Mark
from stfit.recipe.recipe import Recipe, teacher_of
from stfit.workflows.check.estimate import build_schedule, estimate, lint_schedule, measure_footprint
from stfit.workflows.check.leakage import find_leakage
from stfit.workflows.check.memory import lint_memory
from stfit.workflows.check.validate import Prepared, RecipeLocation, first_of, validate

if TYPE_CHECKING:
    from stfit.encoder import build
    from stfit.workflows.mine import rerank
else:
    build = lazy("stfit.encoder.build")
    rerank = lazy("stfit.workflows.mine.rerank")

FIRST_ROWS = 10_000
"""Rows that are read of each Hub dataset, without `full`."""
SAMPLES = 3
MIN_COUNTED, COUNTED = 1024, 4
"""Tokens of a text are counted to so many, or to this multiple of max_seq_length."""

Prompts = dict[str, str]
"""Role -> the text put before its texts."""


def check(path: Path, overrides: list[str], *, full: bool = False, strict: bool = False) -> dict[str, Any]:
    """`error` is the error that `train` would end with; `full` reads all rows of Hub datasets and streams."""
    try:
        loaded = load_recipe(path, overrides)
    except RecipeError as error:
        return _summarize(Prepared(errors=[error]), strict)
    recipe = loaded.recipe if full else limit_hub_splits(loaded.recipe)
    report = validate(recipe, loaded.origins)
    facts: dict[str, Any] = {
        "looked_at": "all looked at" if recipe == loaded.recipe else f"the first {FIRST_ROWS} rows"
    }
    if recipe.is_streamed and recipe == loaded.recipe:
        facts["looked_at"] = f"the first of a stream{', read to its end' if full else ''}"
    if full:
        _read_streams(recipe, report)
    if not report.errors:
        report.warnings += find_leakage(recipe, report.examples_of, report.evaluators(recipe), full)
    if report.examples_of.keys() == recipe.objectives_by_path.keys():
        training = report.training
        prompts = [
            _prompts_of(recipe, report.base, objective.data, examples)
            for objective, examples in zip(recipe.objectives_by_path.values(), training, strict=True)
        ]
        facts["rows"] = sum(map(len, training))
        facts["dropped"] = count_dropped(training)
        facts["samples"] = list(chain.from_iterable(map(_samples, training, prompts)))
        with report.collect_errors(location=RecipeLocation(loaded.origins, "train", "batch_size")):
            facts |= _estimate(recipe, report, prompts)
    if not report.errors:
        _check_weights(recipe, loaded.origins, report, full)
    return _summarize(report, strict) | facts


def result_to_json(result: dict[str, Any]) -> dict[str, Any]:
    """What `--json` prints, of what `check` gives."""
    return result | {kind: [problem.to_json() for problem in result[kind]] for kind in ("errors", "warnings")}


def _read_streams(recipe: Recipe, report: Prepared) -> None:
    for key, objective in recipe.objectives_by_path.items():
        source = objective.data
        if source.streaming and key in report.examples_of:
            with report.collect_errors(source.dataset):
                for examples in read_examples(open_blocks(source)(), source):
                    if len(examples):
                        check_kind(objective.needs, examples)


def _check_weights(recipe: Recipe, origins: Mapping[str, Mark], report: Prepared, full: bool) -> None:
    """Build the encoders of bases in a local folder, as `train` does; the values of weights are read with `full`."""
    models: dict[tuple[str, str], Model | CrossEncoderTeacher] = {("model", "base"): recipe.model}
    for key, loss in recipe.losses_by_path.items():
        if teacher := teacher_of(loss):
            models[key, "teacher"] = teacher
    for (section, key), model in models.items():
        with report.collect_errors(location=RecipeLocation(origins, section, key)):
            if isinstance(model, CrossEncoderTeacher):
                if full and is_local(model.cross_encoder):
                    rerank.open_cross_encoder(model, "cpu")
            elif isinstance(model.base, str) and is_local(model.base):
                build.build_encoder(model, report.all_texts, read_weights=full)


def _summarize(report: Prepared, strict: bool) -> dict[str, Any]:
    errors, warnings = [*report.errors], report.warnings
    if strict and warnings:
        errors.append(DataError(warnings))
        warnings = []
    result = {"errors": [problem for error in errors for problem in error.problems], "warnings": warnings}
    if not errors:
        return result
    error = first_of(errors)
    return result | {"error": {"class": type(error).__name__, "message": str(error), "exit_code": error.exit_code}}


def limit_hub_splits(recipe: Recipe) -> Recipe:
    evaluators = [evaluator.model_copy(update=_shortened(evaluator)) for evaluator in recipe.eval]
    data = recipe.data and recipe.data.model_copy(update=_shortened(recipe.data))
    objectives = recipe.objectives and [
        objective.model_copy(update={"data": objective.data.model_copy(update=_shortened(objective.data))})
        for objective in recipe.objectives
    ]
    return recipe.model_copy(update={"data": data, "objectives": objectives, "eval": evaluators})


def _shortened(source: Source | Benchmark) -> dict[str, str]:
    if not source.dataset or not is_remote(source.dataset) or "[" in source.split:
        return {}
    return {"split": Preview("+".join(f"{name.strip()}[:{FIRST_ROWS}]" for name in source.split.split("+")))}


def _prompts_of(recipe: Recipe, base: ModelInfo, source: Source, examples: Examples) -> Prompts:
    """The prompt of each role; empty for an unknown prompt, which has been reported already."""
    known = with_built_in(base.prompts | recipe.model.prompts)
    default = recipe.model.default_prompt or base.default_prompt
    names = {role: prompt_name(role, source.prompts, default) for role in examples.texts}
    return {role: known.get(name or "", "") for role, name in names.items()}


def _samples(examples: Examples, prompts: Prompts) -> Iterator[dict[str, Any]]:
    for position in range(min(SAMPLES, len(examples))):
        texts = {role: column[position] for role, column in examples.texts.items()}
        row: dict[str, Any] = {role: prompts[role] + text for role, text in texts.items() if text is not None}
        if examples.label is not None:
            row["label"] = examples.label[position].item()
            row |= {"class": examples.label_names[row["label"]]} if examples.label_names else {}
        if examples.scores is not None:
            row["scores"] = examples.scores[position][: len(row) - 1].tolist()
        yield row


def _estimate(recipe: Recipe, report: Prepared, prompts: list[Prompts]) -> dict[str, Any]:
    max_seq_length = recipe.model.max_seq_length or report.base.max_seq_length
    tokenizer = report.base.load_tokenizer and report.base.load_tokenizer()
    counted_to = max(MIN_COUNTED, COUNTED * max_seq_length) if max_seq_length else None
    if counted_to and isinstance(tokenizer, FileTokenizer):
        tokenizer.cut_at(counted_to)
    tables = [
        count_tokens(tokenizer, examples, texts).duplicate_columns(objective.views)
        for objective, examples, texts in zip(recipe.objectives_by_path.values(), report.training, prompts, strict=True)
    ]
    schedule = build_schedule(recipe, report.training)
    unknown_id = tokenizer.unknown_id if tokenizer else None
    report.warnings += lint_schedule(recipe, tables, schedule, max_seq_length, unknown_id)
    evaluators = None if report.errors else report.evaluators(recipe)
    footprint = measure_footprint(recipe, tables, schedule, report.base, max_seq_length, evaluators or [])
    report.warnings += lint_memory(footprint)
    counted = "tokens" if tokenizer else "words, as the base's tokenizer is not here yet"
    facts = estimate(recipe, tables, schedule, footprint, evaluators, tokenizer or estimate_tokens)
    return facts | {"counted": counted, "lengths_counted_to": counted_to}


def count_tokens(tokenizer: Tokenizer | None, examples: Examples, prompts: Prompts) -> TokenTable:
    """The texts as tokens, or as words if the base's tokenizer has not been downloaded."""
    if tokenizer is None:
        return tokenize_examples(examples, prompts, estimate_tokens, "words", lambda prompt: 0)
    return tokenize_examples(examples, prompts, tokenizer, f"uncut {tokenizer.fingerprint}", lambda prompt: 0)
