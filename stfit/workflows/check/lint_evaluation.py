"""Checks of what a recipe measures: its metrics, slices, precisions and gates."""

from difflib import SequenceMatcher
from typing import get_args

from stfit.data.reading.local_files import shown_split
from stfit.encoder.folder.model_config import ModelInfo
from stfit.errors import MAX_SHOWN
from stfit.evaluation.base import When
from stfit.evaluation.measure import evaluator_of, known_metrics
from stfit.evaluation.precision import NO_BITS
from stfit.evaluation.slices import WORST, slice_of, with_slice
from stfit.losses.pairs import Softmax
from stfit.recipe.recipe import Recipe
from stfit.workflows.check.findings import Findings

NO_NEIGHBOR = 0.4
"""Distance at which a known metric is not what was meant, from 0 to 1."""


def unknown_metrics(recipe: Recipe, base: ModelInfo) -> Findings:
    used: list[tuple[str, str | None, When]] = [("train.best", recipe.train.best, "during")]
    used += [(f"gate.{i}.metric", gate.metric, "end") for i, gate in enumerate(recipe.gate)]
    for key, metric, moment in used:
        if metric is not None and of_worst_slice(recipe, metric) not in known_metrics(
            recipe.eval, moment, recipe.matryoshka_dims
        ):
            when = "during training" if moment == "during" else "after training"
            hint = _metric_hint(recipe, metric, moment)
            yield key, "unknown-metric", f"no evaluator computes `{metric}` {when}: {hint}"


def of_worst_slice(recipe: Recipe, metric: str) -> str:
    """The metric of a slice, whose name only the rows tell, as that of the worst one."""
    label = evaluator_of(metric, [evaluator.label for evaluator in recipe.eval])
    return metric if slice_of(metric, label) is None else with_slice(metric, label, WORST)


def unmeasurable(recipe: Recipe, base: ModelInfo) -> Findings:
    for i, evaluator in enumerate(recipe.eval):
        if evaluator.by is not None and not evaluator.can_slice:
            yield f"eval.{i}.by", "slices", f"{evaluator.tag()} has no rows that a column divides: remove this key"
        heads = sum(isinstance(loss, Softmax) for loss in recipe.losses_by_path.values())
        if evaluator.needs_head and heads != 1:
            many = f"; with {heads} of them, it is not clear which" if heads else ", which trains a classifier"
            yield f"eval.{i}.type", "no-classifier", f"{evaluator.tag()} needs one loss softmax{many}"
        similarity = recipe.model.similarity or (base.config.similarity if base.config else "cosine")
        wrong = [precision for precision in evaluator.stored_precisions if precision.startswith("binary")]
        if wrong and similarity in NO_BITS:
            message = f"{wrong[0]}: signs have no {similarity} distance, which is the model's similarity"
            yield f"eval.{i}.precisions", "precision", message
        if "binary+rescore" in wrong and not evaluator.can_rescore:
            yield f"eval.{i}.precisions", "precision", f"{evaluator.tag()} searches no corpus: use binary"
    for i, gate in enumerate(recipe.gate):
        label = evaluator_of(gate.metric, [evaluator.label for evaluator in recipe.eval])
        if gate.against == "base" and any(each.needs_head for each in recipe.eval if each.label == label):
            message = "the base has no classifier yet: set `min`, or compare with `published` or a model"
            yield f"gate.{i}.against", "no-classifier", message
        if gate.guard and not any(evaluator.by for evaluator in recipe.eval if evaluator.label == label):
            yield f"gate.{i}.guard", "slices", f"evaluator `{label}` has no slices: set its `by` to a column"
        elif gate.guard and with_slice(gate.metric, label, WORST) not in known_metrics(
            recipe.eval, "end", recipe.matryoshka_dims
        ):
            message = "of slices, only the main metrics are measured: guard one of those"
            yield f"gate.{i}.guard", "slices", f"`{gate.metric}` is no main metric; {message}"


def _metric_hint(recipe: Recipe, metric: str, moment: When) -> str:
    """What to write: a metric that is measured at this moment, or the moment."""
    evaluator_at = {
        name: number
        for number, evaluator in enumerate(recipe.eval)
        for name in known_metrics([evaluator], None, recipe.matryoshka_dims)
    }
    if not evaluator_at:
        return "add an evaluator to `eval`"
    known = known_metrics(recipe.eval, moment, recipe.matryoshka_dims)
    ordered = sorted(evaluator_at, key=lambda name: (name not in known, _distance(metric, name)))
    near = [name for name in ordered if _distance(metric, name) < NO_NEIGHBOR]
    nearest = metric if metric in evaluator_at else next(iter(near), None)
    meant = f"did you mean `{nearest}`? " if nearest not in (metric, None) else ""
    if nearest and nearest not in known:
        number = evaluator_at[nearest]
        when = recipe.eval[number].when
        moments = ", ".join(each for each in get_args(When) if each in (*when, moment))
        return f"{meant}`eval.{number}` measures it only at `when: [{', '.join(when)}]`: write `when: [{moments}]`"
    if not known:
        return f"{meant}add `{moment}` to the `when` of an evaluator"
    more = "; `stfit reference metrics` prints all" if len(known) > MAX_SHOWN else ""
    return f"{meant}known metrics: {', '.join(ordered[: min(MAX_SHOWN, len(known))])}{more}"


def _distance(metric: str, name: str) -> float:
    """How far a known name is from what was written; one that only adds an evaluator or a similarity is near."""
    own, last = metric.rpartition("/")[2], name.rpartition("/")[2]
    is_completed = last == own or last.startswith(f"{own}_")
    name = name.removesuffix(last.removeprefix(own)) if is_completed else name
    unlikeness = 1 - SequenceMatcher(None, metric, name).ratio()
    return min(NO_NEIGHBOR, unlikeness * (NO_NEIGHBOR if is_completed else 1))


def unreachable_gates(recipe: Recipe, base: ModelInfo) -> Findings:
    """A limit in percent, which is never reached, and a published model that the recipe does not name."""
    for i, gate in enumerate(recipe.gate):
        if gate.against == "published" and recipe.push is None:
            effect = "`stfit train` and `stfit eval` skip this gate, and only `stfit push --repo` does not"
            yield f"gate.{i}.against", "gate-without-repo", f"without `push.repo`, {effect}: set it"
        if gate.min is not None and gate.min > 1:
            yield f"gate.{i}.min", "gate-out-of-reach", f"{gate.min:g} can't be reached: metrics are at most 1"


def selection_on_test(recipe: Recipe, base: ModelInfo) -> Findings:
    used = [("train.best", "best-on-test", recipe.train.best or "")]
    used += [(f"gate.{i}.metric", "gate-on-test", gate.metric) for i, gate in enumerate(recipe.gate)]
    split_of = {evaluator.label: shown_split(evaluator) for evaluator in recipe.eval if evaluator.dataset is not None}
    for key, code, metric in used:
        split = split_of.get(evaluator_of(metric, split_of)) or ""
        if split.startswith("test"):
            effect = "which makes its score too high: use another split"
            yield key, code, f"selects the model on the split `{split}`, {effect}"


def unused_evaluation(recipe: Recipe, base: ModelInfo) -> Findings:
    for i, evaluator in enumerate(recipe.eval):
        if not evaluator.when:
            yield f"eval.{i}.when", "never-measured", f"evaluator `{evaluator.label}` never runs"
    if any(evaluator.from_ == "holdout" for evaluator in recipe.eval):
        return
    for key, objective in recipe.objectives_by_path.items():
        if objective.data.holdout is not None:
            message = "holds out rows that no evaluator uses: set `from: holdout` in one, or remove this key"
            yield f"{key}data.holdout", "idle-holdout", message
