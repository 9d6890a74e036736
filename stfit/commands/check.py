"""`stfit check`: what train does before it loads weights, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stfit.data.batching.batches import TokenTable, tokenize_examples
from stfit.data.batching.shuffle_buffer import read_examples
from stfit.data.checks.compatibility import check_kind
from stfit.data.checks.lengths import words
from stfit.data.mapping.examples import Examples, count_dropped
from stfit.data.reading.block_reader import open_tables
from stfit.data.reading.split import Preview
from stfit.data.source import Source, is_remote
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.prompts import prompt_name
from stfit.errors import DataError, RecipeError
from stfit.evaluation.mteb import Mteb
from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import Recipe
from stfit.workflows.estimate import estimate, plan_problems, plan_run
from stfit.workflows.validate import RecipeLocation, ValidationReport, first_of, validate

FIRST_ROWS = 10_000
"""Rows of a Hub dataset that are looked at, unless all are asked for."""
SAMPLES = 3


def check(path: Path, overrides: list[str], *, full: bool = False, strict: bool = False) -> dict[str, Any]:
    """Everything that can be wrong with a recipe: `errors` and `warnings`, lists of Problem.

    Where the data could be loaded also `rows`, `dropped`, `samples` (as the model will see them), and the forecast:
    `steps`, `tokens`, `lengths`, `memory_mib`, `objectives`. `error`, where there is one, is what train would end with.
    `full` looks at all rows of datasets on the Hub, and reads streams to their end; `strict` makes errors of warnings.
    """
    try:
        loaded = load_recipe(path, overrides)
    except RecipeError as error:
        return _report(ValidationReport(errors=[error]), strict)
    recipe = loaded.recipe if full else first_rows(loaded.recipe)
    found = validate(recipe, loaded.origins)
    facts: dict[str, Any] = {
        "looked_at": "all looked at" if recipe == loaded.recipe else f"the first {FIRST_ROWS} rows"
    }
    if recipe.is_streamed and recipe == loaded.recipe:
        facts["looked_at"] = f"the first of a stream{', read to its end' if full else ''}"
    if full:
        _read_streams(recipe, found)
    if found.training.keys() == recipe.objectives_by_path.keys():
        training = list(found.training.values())
        sources = [objective.data for objective in recipe.objectives_by_path.values()]
        prompts = [_prompts_of(recipe, found.base, *each) for each in zip(sources, training, strict=True)]
        facts |= {
            "rows": sum(map(len, training)),
            "dropped": count_dropped(training),
            "samples": [sample for each in zip(training, prompts, strict=True) for sample in _samples(*each)],
        }
        with found.noting(said=RecipeLocation(loaded.origins, "train", "batch_size")):
            facts |= _look_ahead(recipe, found, prompts)
    return _report(found, strict) | facts


def _read_streams(recipe: Recipe, found: ValidationReport) -> None:
    """Hold every row of the streams against the recipe, as training does when it reads them."""
    for key, objective in recipe.objectives_by_path.items():
        source, loss = objective.data, objective.loss
        if source.streaming and key in found.training:
            with found.noting(source.dataset):
                for examples in read_examples(open_tables(source)(), source):
                    if len(examples):
                        check_kind(loss.type, loss.fits, examples)


def _report(found: ValidationReport, strict: bool) -> dict[str, Any]:
    """Mistakes, doubts, and the error that train would end with."""
    errors, warnings = [*found.errors], found.warnings
    if strict and warnings:
        errors.append(DataError(warnings))
        warnings = []
    result = {"errors": [problem for error in errors for problem in error.problems], "warnings": warnings}
    if not errors:
        return result
    error = first_of(errors)
    return result | {"error": {"class": type(error).__name__, "message": str(error), "exit_code": error.exit_code}}


def first_rows(recipe: Recipe) -> Recipe:
    """The recipe with the first rows of whole splits on the Hub."""
    evaluators = [evaluator.model_copy(update=_shortened(evaluator)) for evaluator in recipe.eval]
    data = recipe.data and recipe.data.model_copy(update=_shortened(recipe.data))
    objectives = recipe.objectives and [
        each.model_copy(update={"data": each.data.model_copy(update=_shortened(each.data))})
        for each in recipe.objectives
    ]
    return recipe.model_copy(update={"data": data, "objectives": objectives, "eval": evaluators})


def _shortened(source: Source | Mteb) -> dict[str, str]:
    """The split to read, where it is another."""
    if not source.dataset or not is_remote(source.dataset) or "[" in source.split:
        return {}
    return {"split": Preview("+".join(f"{name.strip()}[:{FIRST_ROWS}]" for name in source.split.split("+")))}


def _prompts_of(recipe: Recipe, base: ModelInfo, source: Source, examples: Examples) -> dict[str, str]:
    """Role -> what will stand before its texts; nothing for a prompt that is not there, which is an error already."""
    known = {**base.prompts, **recipe.model.prompts}
    default = recipe.model.default_prompt or base.default_prompt
    names = {role: prompt_name(role, source.prompts, known) or default for role in examples.texts}
    return {role: known.get(name or "", "") for role, name in names.items()}


def _samples(examples: Examples, prompts: dict[str, str]) -> list[dict[str, Any]]:
    """The first rows as the model will see them."""
    shown = []
    for position in range(min(SAMPLES, len(examples))):
        texts = {role: column[position] for role, column in examples.texts.items()}
        row: dict[str, Any] = {role: prompts[role] + text for role, text in texts.items() if text is not None}
        if examples.label is not None:
            row["label"] = examples.label[position].item()
            row |= {"class": examples.label_names[row["label"]]} if examples.label_names else {}
        shown.append(row)
    return shown


def _look_ahead(recipe: Recipe, found: ValidationReport, prompts: list[dict[str, str]]) -> dict[str, Any]:
    """The run's forecast; adds the warnings that need it. Raises DataError where no batch can be made."""
    limit = recipe.model.max_seq_length or found.base.max_seq_length
    training = list(found.training.values())
    tables = [
        count_tokens(found.base, *each).duplicate_columns(objective.views)
        for objective, each in zip(recipe.objectives_by_path.values(), zip(training, prompts, strict=True), strict=True)
    ]
    plan = plan_run(recipe, tables, [examples.fingerprint for examples in training])
    found.warnings += plan_problems(recipe, tables, plan, limit)
    counted = "tokens" if found.base.load_tokenizer else "words, as the base's tokenizer is not here yet"
    return estimate(recipe, tables, plan, found.base, limit) | {"counted": counted}


def count_tokens(base: ModelInfo, examples: Examples, prompts: dict[str, str]) -> TokenTable:
    """The texts as uncut tokens, or as words where the base's tokenizer is not here."""
    if base.load_tokenizer is None:
        return tokenize_examples(examples, prompts, words, "words", lambda prompt: 0)
    tokens = base.load_tokenizer()
    return tokenize_examples(examples, prompts, tokens, f"uncut {tokens.fingerprint}", lambda prompt: 0)
