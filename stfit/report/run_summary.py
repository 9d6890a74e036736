"""What a run folder tells of its run, for the pages that show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stfit.report.figures import Curve

MOMENTS = {"start": "before", "end": "after"}
PARTS = ("preparing", "data", "forward", "backward", "optimizer", "evaluation", "saving")
"""What the seconds of a run go into, in the order in which it is shown."""


@dataclass(frozen=True)
class MetricDelta:
    """What a metric gained over another model's."""

    value: float
    other: float
    low: float | None
    """The 95 % interval of the gain; None where it is not known."""
    high: float | None
    verdict: str | None
    """better, worse, or no evidence of either."""

    @property
    def gain(self) -> float:
        """The difference."""
        return self.value - self.other

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its ends."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class RunSummary:
    """What a run folder tells of its run."""

    name: str
    state: str
    """`finished`, `in progress`, `stopped at step 40`, and `stopped at step 44, saved at 40` after a kill."""
    date: str
    made_of: list[tuple[str, str]]
    """Base, data, losses and the like, by name."""
    recipe: dict[str, Any]
    """Dotted key -> value, all of them."""
    resolved: str
    """The whole recipe as YAML."""
    lock: str
    main: list[str]
    """Metrics worth showing first."""
    before: dict[str, float]
    after: dict[str, float]
    """Empty for a run that is not over."""
    gains: dict[str, MetricDelta]
    """What the main metrics gained in training."""
    log: list[dict[str, Any]]
    record: dict[str, Any]
    seconds: dict[str, float]
    """What they went into -> seconds."""
    machine: list[tuple[str, str]]
    """Hardware, memory and speed, by name."""

    def seen(self) -> Iterator[tuple[str, dict[str, Any], dict[str, dict[str, Any]]]]:
        """Each sample: its name, what it is of, and what the model made of it before and after."""
        moments = self.record.get("seen", {})
        for position, sample in enumerate(self.record.get("samples", [])):
            looks = {MOMENTS[moment]: seen[position] for moment, seen in moments.items() if position < len(seen)}
            yield sample["name"], sample, looks

    def curves(self) -> dict[str, Curve]:
        """Each main metric over the steps."""
        measured = [entry for entry in self.log if entry["event"] == "eval"]
        lines: dict[str, Curve] = {}
        for name in self.main:
            points = [(entry["step"], entry[name]) for entry in measured if name in entry]
            if len(points) > 1:
                lines[name] = ([step for step, _ in points], [value for _, value in points])
        return lines

    def steps(self, key: str) -> Curve:
        """Something of the steps that were logged."""
        return curve_of(_logged_steps(self.log), key)

    def losses(self) -> Curve:
        """The loss of full batches."""
        return curve_of(full_batches(self.log), "loss")


def _logged_steps(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of steps."""
    return [entry for entry in log if entry["event"] == "step"]


def full_batches(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of steps, but for those on what an epoch leaves over: a loss among few rows is another one."""
    steps = _logged_steps(log)
    most = max((entry["rows"] for entry in steps), default=0)
    return [entry for entry in steps if entry["rows"] > most / 2]


def curve_of(steps: list[dict[str, Any]], key: str) -> Curve:
    """One of their values."""
    return [entry["step"] for entry in steps], [entry[key] for entry in steps]
