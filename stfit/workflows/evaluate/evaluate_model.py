"""Run a recipe's evaluators on a model, check its gate, and compare it with another model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.folder.resolve import ALL_FILES
from stfit.errors import RecipeError
from stfit.evaluation.bootstrap import compare
from stfit.evaluation.gate import GateResult
from stfit.evaluation.measure import Details, Evaluators, evaluator_of, main_metrics, values_of
from stfit.evaluation.slices import require_slice, summarize_slices
from stfit.hub.download import download_files
from stfit.publish.commit import BranchState
from stfit.recipe.recipe import Recipe
from stfit.runtime.device import choose_device
from stfit.workflows.check.findings import lint_recipe
from stfit.workflows.check.lint_evaluation import unknown_metrics
from stfit.workflows.check.validate import prepare_evaluation, slice_problems
from stfit.workflows.evaluate.check_gates import PUBLISHED, check_gates, gate_error, measure_other_seeds
from stfit.workflows.evaluate.measure_model import Statistics, measure_model, measure_other
from stfit.workflows.train.session import log_problem

NAMED = ("base", PUBLISHED)
"""What these mean in a gate is not a folder of that name."""
MOVED = 10
"""Rows that are named, of those whose metric changed."""


@dataclass(frozen=True)
class ModelEvaluation:
    metrics: dict[str, float]
    gates: list[GateResult]
    comparison: dict[str, dict[str, Any]]
    main: list[str]
    slices: dict[str, dict[str, dict[str, Any]]]
    """Metric of all rows -> slice -> its rows, value and interval."""
    moved: dict[str, list[dict[str, Any]]]
    """First metric of each evaluator, if it is a mean -> the rows whose values differ most from the baseline's."""
    details: list[dict[str, Any]]
    """Of each row, if they are asked for."""


def evaluate_model(
    model: str, recipe: Recipe, baseline: str | None = None, with_details: bool = False
) -> ModelEvaluation:
    """`baseline`: another model, measured on the same rows."""
    if not recipe.eval:
        raise RecipeError("the recipe has no `eval:` list, so there is nothing to measure")
    if unknown := lint_recipe([unknown_metrics], recipe, ModelInfo(), {}):
        raise RecipeError(unknown)
    device = choose_device(recipe.train.device)
    evaluators = prepare_evaluation(recipe)
    for evaluator, rows in evaluators:
        for problem in [*evaluator.problems_of(rows), *slice_problems(evaluator, rows)]:
            log_problem(problem)
        names = evaluator.slices_of(rows)
        for gate in recipe.gate:
            require_slice(gate.metric, evaluator.label, names)
    details: Details | None = {} if with_details else None
    encoder, measured = measure_model(model, evaluators, recipe, device, details)
    of_seeds = [measured, *measure_other_seeds(model, evaluators, recipe, device)]
    of_baseline = measure_other(baseline, evaluators, recipe, device) if baseline is not None else {}
    known = {baseline: of_baseline} if baseline not in (None, *NAMED) else {}
    gates = check_gates(of_seeds, evaluators, recipe, device, known)
    comparison, moved = {}, {}
    main = main_metrics(evaluators, encoder.config.similarity, recipe.matryoshka_dims)
    if baseline is not None:
        both = [name for name in measured if name in of_baseline]
        comparison = {name: vars(compare(measured[name], of_baseline[name])) for name in both}
        moved = _rows_that_moved(measured, of_baseline, evaluators, main)
    slices = _summarize_slices(measured, evaluators, main)
    told = [{"evaluator": label} | row for label, described in (details or {}).items() for row in described]
    return ModelEvaluation(values_of(measured), gates, comparison, main, slices, moved, told)


def _rows_that_moved(
    measured: Statistics, baseline: Statistics, evaluators: Evaluators, main: list[str]
) -> dict[str, list[dict[str, Any]]]:
    rows_of = {evaluator.label: evaluator.texts_of_rows(rows) for evaluator, rows in evaluators}
    moved = {}
    first_of = {evaluator_of(name, rows_of): name for name in reversed(main)}
    for label, name in reversed(first_of.items()):
        own, other = (statistics[name].value_r if name in statistics else None for statistics in (measured, baseline))
        texts = rows_of[label]
        if own is None or other is None or len(own) != len(next(iter(texts.values()), [])):
            continue
        order = np.argsort(-np.abs(own - other), kind="stable")[:MOVED].tolist()
        moved[name] = [
            {role: column[i] for role, column in texts.items()} | {"value": own[i].item(), "other": other[i].item()}
            for i in order
            if own[i] != other[i]
        ]
    return {name: rows for name, rows in moved.items() if rows}


def _summarize_slices(measured: Statistics, evaluators: Evaluators, main: list[str]) -> dict[str, Any]:
    """Of the main metrics."""
    labels = [evaluator.label for evaluator, _ in evaluators if evaluator.by]
    found = {name: summarize_slices(measured, name, label) for name in main if (label := evaluator_of(name, labels))}
    return {name: slices for name, slices in found.items() if slices}


def evaluate_gate(model: Path, recipe: Recipe, repo: str, head: BranchState) -> dict[str, Any]:
    """Whether a model may replace the published one: both are measured by the same code on the same rows."""
    published = (
        str(download_files("model", repo, head.commit, ALL_FILES))
        if head.commit and "modules.json" in head.files
        else None
    )
    gates = [gate for gate in recipe.gate if published or gate.against != PUBLISHED]
    skipped = [gate for gate in recipe.gate if gate not in gates]
    gates = [gate.model_copy(update={"against": published}) if gate.against == PUBLISHED else gate for gate in gates]
    evaluation = evaluate_model(str(model), recipe.model_copy(update={"gate": gates}), published)
    results = [
        replace(result, against=PUBLISHED) if published and result.against == published else result
        for result in evaluation.gates
    ]
    note = f"nothing is published at {repo} yet" if head.is_known else f"{repo} is not looked at without a token"
    results += [
        GateResult(gate.metric, evaluation.metrics[gate.metric], None, None, PUBLISHED, note=note) for gate in skipped
    ]
    return {
        "repo": repo,
        "published": head.commit if published else None,
        "gate": [vars(result) for result in results],
        "compared": evaluation.comparison,
        **gate_error(evaluation.gates),
    }
