"""Gates: conditions on metrics that a model must meet to be published."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.evaluation.bootstrap import RESAMPLES, lower_bound, lower_bound_over_seeds, min_rows
from stfit.evaluation.statistic import Statistic
from stfit.paths import Location
from stfit.spec import Spec

MIN_SEEDS = 2
DRAWS_IN_TAIL, MAX_DRAWS = 20, 40_000
"""Draws beyond the bound of a guard, which lies farther out the more slices there are."""


class Gate(Spec):
    """The minimum value of a metric, or its minimum gain over another model."""

    metric: str
    """A metric of `eval`, such as `stsb/spearman_cosine`."""
    min: float | None = None
    """Minimum value."""
    against: Location | None = None
    """Model to compare with: `base` (the model before training), `published` (the model that `push` would replace), or
    a model folder."""
    min_gain: float = 0.0
    """Minimum gain over the other model."""
    guard: bool = False
    """Also refuse a model that is worse in any slice of the evaluator (its `by`): whose gain there is below `min_gain`
    by more than chance, at a confidence that is corrected for the number of slices (Bonferroni). A model that is no
    worse anywhere is refused with a probability of at most 1 - confidence."""
    over: Literal["seeds"] | None = None
    """`seeds`: compare the mean over the seeds of a sweep (`stfit sweep RECIPE seed=1,2,3`) instead of one model, so
    that a lucky seed does not pass. The bound of the gain then includes the luck of seeds, that of the other model too
    unless it is `base`."""
    confidence: float | None = Field(0.95, gt=0.5, lt=1)
    """Confidence of the gain: its one-sided lower bound, from a paired bootstrap over the rows, must be at least
    `min_gain`. A model that is no better passes with a probability of 1 - confidence. null compares plain values."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.min is None) == (self.against is None):
            raise ValueError("set either `min` or `against`; for both, add two gates")
        for key in ("min_gain", "guard", "confidence"):  # resolved.yaml contains their defaults
            if self.against is None and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"`{key}` applies to the gain over another model: set `against`")
        if self.over and self.guard:
            raise ValueError("`guard` compares the slices of one model: set it in a gate without `over`")
        return self


Guarded = dict[str, tuple[Statistic, Statistic]]
"""Slice -> a metric of the model and of the other one."""


@dataclass(frozen=True)
class GateResult:
    metric: str
    value: float
    limit: float | None
    """Minimum value that passes; with a confidence, it includes the margin for chance. None if no value would."""
    passed: bool | None
    against: str | None = None
    other: float | None = None
    gain: float | None = None
    low: float | None = None
    """Lower bound of the gain; the gain itself without a confidence."""
    note: str = ""
    seeds: int | None = None
    """Number of models whose mean is compared."""


def decide(gate: Gate, model: Statistic, baseline: Statistic | None, note: str = "") -> GateResult:
    """Evaluate a gate; `baseline` is the metric of the model in `against`, `note` the reason if it is missing."""
    if gate.min is not None:
        return GateResult(gate.metric, model.value, gate.min, model.value >= gate.min)
    if baseline is None:
        return GateResult(gate.metric, model.value, None, None, gate.against, note=note)
    gain = model.value - baseline.value
    if note := _too_few_rows(gate, model):
        return GateResult(gate.metric, model.value, None, False, gate.against, baseline.value, gain, None, note)
    low = gain if gate.confidence is None else lower_bound(model, baseline, gate.confidence)
    limit = model.value - low + gate.min_gain
    note = "no gain" if gain == low == 0 else ""
    passed = low >= gate.min_gain
    return GateResult(gate.metric, model.value, limit, passed, gate.against, baseline.value, gain, low, note)


def _too_few_rows(gate: Gate, model: Statistic) -> str:
    """Why the rows can't show a gain; empty if they can, or if there are none to resample."""
    needed = min_rows(1 - gate.confidence) if gate.confidence else 0
    if not 0 < model.rows < needed:
        return ""
    return f"{model.rows} rows can't show a gain with a confidence of {gate.confidence}: it takes at least {needed}"


def decide_over_seeds(
    gate: Gate, models: Sequence[Statistic], baseline: Statistic | None, note: str = ""
) -> GateResult:
    """Like `decide`, for the mean of models that differ in their seed alone."""
    count, value = len(models), fmean(model.value for model in models)
    if count < MIN_SEEDS:
        note = f"{count} seed is no mean: train more with `stfit sweep RECIPE seed=1,2,3`"
        return GateResult(gate.metric, value, None, False, gate.against, note=note, seeds=count)
    if gate.min is not None:
        return GateResult(gate.metric, value, gate.min, value >= gate.min, seeds=count)
    if baseline is None:
        return GateResult(gate.metric, value, None, None, gate.against, note=note, seeds=count)
    gain = value - baseline.value
    if note := _too_few_rows(gate, models[0]):
        return GateResult(gate.metric, value, None, False, gate.against, baseline.value, gain, None, note, seeds=count)
    low = gain
    if gate.confidence is not None:
        low = lower_bound_over_seeds(models, baseline, gate.confidence, is_drawn=gate.against != "base")
    limit, passed = value - low + gate.min_gain, low >= gate.min_gain
    return GateResult(gate.metric, value, limit, passed, gate.against, baseline.value, gain, low, seeds=count)


def guard(gate: Gate, name: str, slices: Guarded) -> GateResult:
    """Whether no slice is worse than `min_gain` allows. `name`: the metric, of all slices."""
    gains = {part: model.value - other.value for part, (model, other) in slices.items()}
    chance = (1 - gate.confidence) / len(slices) if gate.confidence else 0.0
    highest = dict(gains)
    if chance:
        draws = int(np.clip(DRAWS_IN_TAIL / chance, RESAMPLES, MAX_DRAWS))
        highest = {
            part: -lower_bound(other, model, 1 - chance, draws)
            for part, (model, other) in slices.items()
            if model.rows >= min_rows(chance)
        }
    worse = [part for part, bound in highest.items() if bound < gate.min_gain]
    lowest = min(worse or gains, key=lambda part: gains[part])
    model, other = slices[lowest]
    unknown = len(slices) - len(highest)
    note = f"worse in {', '.join(worse)}" if worse else f"lowest gain in {lowest}"
    note += f"; {unknown} of {len(slices)} slices have too few rows to tell" if unknown else ""
    limit = model.value - gains[lowest] + gate.min_gain
    return GateResult(name, model.value, limit, not worse, gate.against, other.value, gains[lowest], None, note)
