"""Is a model good enough to be published?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from stfit.evaluation.bootstrap import lower_bound
from stfit.evaluation.statistic import Statistic
from stfit.paths import Location
from stfit.spec import Spec


class Gate(Spec):
    """A metric's least value, or its least gain over another model."""

    metric: str
    """A metric of `eval` such as `stsb/spearman_cosine`."""
    min: float | None = None
    """Least value."""
    against: Location | None = None
    """`base` (the model before its first step), `published` (what `push` would replace), or a model folder."""
    min_gain: float = 0.0
    """Least gain over the other model."""
    confidence: float | None = Field(0.95, gt=0.5, lt=1)
    """How sure the gain has to be: its one-sided lower bound, by a paired bootstrap over the rows, is at least
    `min_gain`. A model that is no better passes at a rate of 1 - confidence. null = compare the plain numbers."""

    @model_validator(mode="after")
    def one_limit(self) -> Self:
        """A line says one thing."""
        if (self.min is None) == (self.against is None):
            raise ValueError("give `min`, or `against`; for both, write two lines")
        defaults = type(self).model_fields  # which the resolved.yaml of a run spells out
        idle = [key for key in ("min_gain", "confidence") if getattr(self, key) != defaults[key].default]
        if self.against is None and idle:
            raise ValueError(f"`{idle[0]}` is about the gain over another model: it needs `against`")
        return self


@dataclass(frozen=True)
class GateResult:
    """What a gate says of a model: it passes where its value is at least the limit."""

    metric: str
    value: float
    limit: float | None
    """Least value that passes; with a confidence, higher than the other's by the margin that luck needs."""
    passed: bool | None
    """None where there is nothing to compare with."""
    against: str | None = None
    other: float | None = None
    gain: float | None = None
    low: float | None = None
    """Lower bound of the gain; the gain itself without a confidence."""
    note: str = ""


def decide(gate: Gate, own: Statistic, other: Statistic | None, note: str = "") -> GateResult:
    """Hold a metric of a model against a gate; `other` is that of the model it names, `note` why there is none."""
    if gate.min is not None:
        return GateResult(gate.metric, own.value, gate.min, own.value >= gate.min)
    if other is None:
        return GateResult(gate.metric, own.value, None, None, gate.against, note=note)
    gain = own.value - other.value
    low = gain if gate.confidence is None else lower_bound(own, other, gate.confidence)
    limit = own.value - low + gate.min_gain
    return GateResult(gate.metric, own.value, limit, low >= gate.min_gain, gate.against, other.value, gain, low)
