"""`stfit eval`: run a recipe's evaluators on a model, hold it against others, and decide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.inspect import ModelInfo
from stfit.encoder.folder.resolve import model_in
from stfit.errors import GateError, ModelError, RecipeError
from stfit.evaluation.bootstrap import compare
from stfit.evaluation.gate import Gate, GateResult, decide
from stfit.evaluation.measure import Evaluators, evaluator_of, main_metrics, measure, values_of
from stfit.evaluation.statistic import Statistic
from stfit.recipe.recipe import Recipe
from stfit.runtime.device import choose_device
from stfit.workflows.baselines import load_baseline
from stfit.workflows.lint import lint_recipe, unknown_metrics
from stfit.workflows.validate import prepare_evaluation

Measured = dict[str, Statistic]
"""Metric -> what was measured."""


def evaluate(model: str, recipe: Recipe, rival: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """What `stfit eval --json` prints, and the metrics worth showing first. `rival`: a model to compare with.

    `gate` is there where the recipe has one, and `error` where it is not passed; `compare` where there is a rival.
    """
    if not recipe.eval:
        raise RecipeError("the recipe has no `eval:` list, so there is nothing to measure")
    if unknown := lint_recipe([unknown_metrics], recipe, ModelInfo(), {}):
        raise RecipeError(unknown)
    device = choose_device(recipe.train.device)
    evaluators = prepare_evaluation(recipe)
    encoder = load_encoder(model_in(model), device)
    own = measure(encoder, evaluators, "end", recipe.dims)
    result: dict[str, Any] = {"model": model_in(model), "metrics": values_of(own)}
    if recipe.gate:
        lines = _check_gates(own, evaluators, recipe, device)
        result |= {"gate": [vars(line) for line in lines]} | _gate_error(lines)
    if rival is not None:
        other = measure(load_encoder(model_in(rival), device), evaluators, "end", recipe.dims)
        both = {name: vars(compare(own[name], other[name])) for name in own if name in other}
        result["compare"] = {"model": model_in(rival), "metrics": both}
    return result, main_metrics(evaluators, encoder.traits.similarity, recipe.dims)


def _check_gates(own: Measured, evaluators: Evaluators, recipe: Recipe, device: str) -> list[GateResult]:
    """What every line of the gate says of a model. Each model that it names is measured once."""
    others: dict[str, Measured | str] = {}
    lines = []
    for gate in recipe.gate:
        name = gate.against
        if name is not None and name not in others:
            encoder = load_baseline(name, recipe, device)
            named = [each.metric for each in recipe.gate if each.against == name]
            others[name] = encoder if isinstance(encoder, str) else _measure_named(encoder, evaluators, named, recipe)
        lines.append(_line_of(gate, own, others.get(name or "", "")))
    return lines


def _line_of(gate: Gate, own: Measured, other: Measured | str) -> GateResult:
    """One line; `other` are the other model's metrics, or why there are none."""
    if gate.metric not in own:
        raise ModelError(f"gate: the model gives no `{gate.metric}`: its embeddings are smaller")
    if isinstance(other, str):
        return decide(gate, own[gate.metric], None, other)
    if gate.metric not in other:
        raise ModelError(f"gate: {gate.against} gives no `{gate.metric}`: its embeddings are smaller")
    return decide(gate, own[gate.metric], other[gate.metric])


def _measure_named(encoder: Encoder, evaluators: Evaluators, metrics: Iterable[str], recipe: Recipe) -> Measured:
    """What an encoder gets from the evaluators of some metrics."""
    labels = {evaluator_of(metric) for metric in metrics}
    wanted = [(evaluator, rows) for evaluator, rows in evaluators if evaluator.label in labels]
    return measure(encoder, wanted, "end", recipe.dims)


def _gate_error(lines: list[GateResult]) -> dict[str, Any]:
    """The `error` of a model that its gate does not let pass; a line that was skipped says nothing."""
    failed = [line for line in lines if line.passed is False]
    if not failed:
        return {}
    named = ", ".join(f"{line.metric} is {line.value:.4f}, and has to be {line.limit:.4f}" for line in failed)
    message = f"{len(failed)} of {len(lines)} gates are not passed: {named}"
    return {"error": {"class": GateError.__name__, "message": message, "exit_code": GateError.exit_code}}
