"""Hold models against the gates of their recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stfit.encoder.folder.resolve import inner_model
from stfit.errors import GateError, ModelError
from stfit.evaluation.gate import Gate, GateResult, decide, decide_over_seeds, guard
from stfit.evaluation.measure import Evaluators, evaluator_of
from stfit.evaluation.slices import WORST, slice_of, with_slice
from stfit.io.json_files import load_json_object
from stfit.progress import task
from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import Recipe
from stfit.runtime.device import choose_device
from stfit.runtime.run_folder import SWEEP_SUMMARY, RunFolder
from stfit.workflows.check.validate import prepare_evaluation
from stfit.workflows.evaluate.baselines import find_baseline
from stfit.workflows.evaluate.measure_model import Statistics, measure_model, measure_other

PUBLISHED = "published"
REASONS = "its embeddings have fewer dimensions, or it has no classifier"


def check_gates_after_training(
    before: Statistics, after: Statistics, evaluators: Evaluators, recipe: Recipe, device: str
) -> list[GateResult]:
    """The gates of a trained model. What is published is not fetched for it: `stfit eval` and `stfit push` compare."""
    later = "`stfit eval` and `stfit push` compare them"
    of_model = recipe.model_copy(update={"gate": [gate for gate in recipe.gate if not gate.over]})
    in_base = all(gate.metric in before for gate in of_model.gate if gate.against == "base")
    known: dict[str, Statistics | str] = {PUBLISHED: later} | ({"base": before} if in_base else {})
    results = check_gates([after], evaluators, of_model, device, known)
    later = "`stfit sweep` compares the mean over its seeds"
    over_seeds = [gate for gate in recipe.gate if gate.over]
    return results + [
        GateResult(gate.metric, after[gate.metric].value, None, None, gate.against, note=later) for gate in over_seeds
    ]


def check_gates_of_sweep(models: Sequence[Path], recipe: Recipe) -> list[GateResult]:
    """The gates of a recipe that compare the mean of models, which differ in their seed alone."""
    over_seeds = [gate for gate in recipe.gate if gate.over]
    recipe, device = recipe.model_copy(update={"gate": over_seeds}), choose_device(recipe.train.device)
    evaluators = _needed(prepare_evaluation(recipe), over_seeds)
    measured = [measure_model(model, evaluators, recipe, device)[1] for model in models]
    return check_gates(measured, evaluators, recipe, device, {})


def _needed(evaluators: Evaluators, gates: Sequence[Gate]) -> Evaluators:
    """The evaluators that measure the metrics of some gates."""
    known = [evaluator.label for evaluator, _ in evaluators]
    labels = {evaluator_of(gate.metric, known) for gate in gates}
    return [(evaluator, rows) for evaluator, rows in evaluators if evaluator.label in labels]


def measure_other_seeds(model: str, evaluators: Evaluators, recipe: Recipe, device: str) -> list[Statistics]:
    """What the gates over seeds need of the other models of a sweep that differ from `model` in their seed alone."""
    over_seeds = [gate for gate in recipe.gate if gate.over]
    needed, others = _needed(evaluators, over_seeds), _other_seeds(Path(model)) if over_seeds else []
    return [measure_model(run, needed, recipe, device)[1] for run in others]


def _other_seeds(model: Path) -> list[Path]:
    """The runs of the same setting as that of `model`; none if it is not of a sweep."""
    run, again = inner_model(model).absolute().parent, "run their `stfit sweep` again"
    settings = (load_json_object(run.parent / SWEEP_SUMMARY) or {}).get("settings")
    members = [setting.get("runs") for setting in settings or [] if isinstance(setting, dict)]
    names = next((each for each in members if isinstance(each, list) and run.name in each), [run.name])
    others = [run.parent / name for name in names if name != run.name]
    if missing := [other.name for other in others if RunFolder(other).read_result() is None]:
        raise ModelError(f"gate over seeds: {', '.join(missing)}, of the same sweep, has no result: {again}")
    recipes = [load_recipe(RunFolder(each).resolved).recipe for each in (run, *others)] if others else []
    settings_of = [each.model_dump(exclude={"name", "seed", "eval", "gate", "push"}) for each in recipes]
    if any(each != settings_of[0] for each in settings_of):
        raise ModelError(f"gate over seeds: {', '.join(names)} differ in more than their seed: {again}")
    if len({each.seed for each in recipes}) < len(recipes):
        raise ModelError(f"gate over seeds: some of {', '.join(names)} have the same seed: {again}, each seed once")
    return others


def check_gates(
    measured: Sequence[Statistics],
    evaluators: Evaluators,
    recipe: Recipe,
    device: str,
    known: Mapping[str, Statistics | str],
) -> list[GateResult]:
    """`measured`: the model's metrics, then those of other seeds.

    `known`: other models that are measured already, or the reason why not.
    """
    baselines = dict(known)
    results = []
    for gate in recipe.gate:
        name = gate.against
        if name is not None and name not in baselines:
            needed = _needed(evaluators, [gate for gate in recipe.gate if gate.against == name])
            with task(f"the gate's other model, {name}"):
                other = find_baseline(name, recipe, device)
                baselines[name] = other if isinstance(other, str) else measure_other(other, needed, recipe, device)
        baseline = baselines.get(name or "", "")
        results.append(_check_gate(gate, measured, baseline))
        if gate.guard and not isinstance(baseline, str):
            label = evaluator_of(gate.metric, [evaluator.label for evaluator, _ in evaluators])
            results.append(_check_slices(gate, label, measured[0], baseline))
    return results


def _check_slices(gate: Gate, label: str, measured: Statistics, baseline: Statistics) -> GateResult:
    of_metric = with_slice(gate.metric, label, None)
    slices = {
        part: (measured[name], baseline[name])
        for name in measured
        if (part := slice_of(name, label)) not in (None, WORST) and with_slice(name, label, None) == of_metric
    }
    return guard(gate, with_slice(gate.metric, label, "each"), slices)


def _check_gate(gate: Gate, measured: Sequence[Statistics], baseline: Statistics | str) -> GateResult:
    """`baseline`: the other model's metrics, or the reason why there are none."""
    if any(gate.metric not in of_model for of_model in measured):
        raise ModelError(f"gate: the model has no metric `{gate.metric}`: {REASONS}")
    if not isinstance(baseline, str) and gate.metric not in baseline:
        raise ModelError(f"gate: {gate.against} has no metric `{gate.metric}`: {REASONS}")
    other, note = (None, baseline) if isinstance(baseline, str) else (baseline[gate.metric], "")
    if gate.over:
        return decide_over_seeds(gate, [of_model[gate.metric] for of_model in measured], other, note)
    return decide(gate, measured[0][gate.metric], other, note)


def gate_error(results: list[GateResult]) -> dict[str, Any]:
    failed = [result for result in results if result.passed is False]
    if not failed:
        return {}
    reasons = ", ".join(
        f"{result.metric} is {result.value:.4f}, {result.note or f'below {result.limit:.4f}'}" for result in failed
    )
    message = f"{len(failed)} of {len(results)} gates failed: {reasons}"
    return {"error": {"class": GateError.__name__, "message": message, "exit_code": GateError.exit_code}}
