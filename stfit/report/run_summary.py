"""The contents of a run folder, as its report and the comparison of runs need them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

Curve = tuple[list[float], list[float]]
"""x and y of a line."""

STAGE_TITLES = {"start": "before", "end": "after"}
PHASES = ("preparing", "data", "forward", "backward", "optimizer", "evaluation", "saving")
"""What the time of a run is spent on, in the order in which it is shown."""


@dataclass(frozen=True)
class RunSummary:
    name: str
    state: str
    """`finished`, `in progress`, `stopped at step 40`, or `stopped at step 44, saved at 40` after a kill."""
    date: str
    inputs: list[tuple[str, str]]
    """Base model, data, losses, evaluators and versions, by name."""
    recipe: dict[str, Any]
    """Every value by its dotted key."""
    resolved: str
    lock: str
    main: list[str]
    before: dict[str, float]
    after: dict[str, float]
    """Empty if the run has not finished."""
    gains: dict[str, dict[str, Any]]
    """The fields of a Comparison: each main metric after and before the training."""
    log: list[dict[str, Any]]
    record: dict[str, Any]
    """Samples, snapshots and warnings that were recorded during the run."""
    seconds: dict[str, float]
    costs: dict[str, str]
    """Memory, speed and steps. Empty if the run has not finished."""
    machine: dict[str, str]
    """Hardware, and versions of Python and the packages."""

    def snapshots(self) -> Iterator[tuple[str, dict[str, Any], dict[str, dict[str, Any]]]]:
        """Each recorded sample: its name, its texts, and a snapshot of the embeddings `before` and `after`."""
        stages = self.record.get("seen", {})
        for position, sample in enumerate(self.record.get("samples", [])):
            by_title = {STAGE_TITLES[stage]: seen[position] for stage, seen in stages.items() if position < len(seen)}
            yield sample["name"], sample, by_title

    def metric_curves(self) -> dict[str, Curve]:
        """Each main metric over the steps, if it was measured at more than one."""
        evaluations = [entry for entry in self.log if entry["event"] == "eval"]
        curves: dict[str, Curve] = {}
        for name in interleave_evaluators(self.main):
            points = [(entry["step"], entry[name]) for entry in evaluations if name in entry]
            if len(points) > 1:
                curves[name] = ([step for step, _ in points], [value for _, value in points])
        return curves

    def learning_rates(self) -> Curve:
        steps = _logged_steps(self.log)
        return [entry["step"] for entry in steps], [entry["learning_rate"] for entry in steps]


def interleave_evaluators(metrics: Sequence[str]) -> list[str]:
    """The first metric of each evaluator, then the second of each: the first few then show every evaluator."""
    of_evaluator: dict[str, list[str]] = {}
    for name in metrics:
        of_evaluator.setdefault(name.partition("/")[0], []).append(name)
    return [name for names in zip_longest(*of_evaluator.values()) for name in names if name is not None]


def loss_curve(log: list[dict[str, Any]], name: str = "loss") -> Curve:
    """Without the small batches at the end of an epoch, whose losses are not comparable."""
    steps = _logged_steps(log)
    largest = max((entry["rows"] for entry in steps), default=0)
    full = [entry for entry in steps if entry["rows"] > largest / 2 and name in entry]
    return [entry["step"] for entry in full], [entry[name] for entry in full]


def term_curves(log: list[dict[str, Any]]) -> dict[str, Curve]:
    """Of each loss of a list, its part of the sum."""
    names = dict.fromkeys(name for entry in _logged_steps(log) for name in entry if name.startswith("loss/"))
    return {name: loss_curve(log, name) for name in names}


def _logged_steps(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in log if entry["event"] == "step"]
