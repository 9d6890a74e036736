"""What a run carries from step to step, and what is due after each step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan
from typing import TYPE_CHECKING

from stfit.training.hyperparameters import Train
from stfit.training.lr_schedule import duration_in_steps, learning_rate_at

if TYPE_CHECKING:
    from stfit.events import StepInfo

WARM_UP_STEPS = 2
"""Steps of each process that do not count toward the measured speed."""

DEFAULT_EPOCHS = 1.0
DEFAULT_WARMUP = 0.1
DEFAULT_INTERVAL = 0.25
WORTH_SAVING = 60.0
"""Seconds of steps that a checkpoint has to save, unless the recipe asks for it: else it costs more than it saves."""


@dataclass
class TrainState:
    """Progress of a run. Checkpoints store these fields by name: renaming one breaks the runs of earlier versions."""

    step: int = 0
    processes: int = 1
    """World size when the run began. It determines the rows of a batch, so a resumed run keeps it."""
    measured_step: int = 0
    """The last step after which an evaluation finished."""
    best: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    weights: dict[str, str] = field(default_factory=dict)
    """Digests of the files of weights in the model that was written last."""
    baseline: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    loss_sum: float = 0.0
    loss_steps: int = 0
    """Sum of the losses since the last step that was logged, and their number."""
    term_sums: dict[str, float] = field(default_factory=dict)
    term_steps: dict[str, int] = field(default_factory=dict)
    """The same for each term, if a loss is a list."""
    seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds of the whole run by activity: the parts of the steps, preparing, evaluation, saving."""
    saved_seconds: float = 0.0
    """The value of `seconds` at the last checkpoint."""
    timed_rows: int = 0
    timed_seconds: float = 0.0
    """Rows and seconds of the steps that count toward the speed."""

    def update(self, info: StepInfo, first_step: int) -> None:
        """Count a finished step; `first_step` is where this process began."""
        self.step = info.step
        self.loss_sum += info.loss
        self.loss_steps += 1
        for name, value in info.terms.items():
            self.term_sums[name] = self.term_sums.get(name, 0.0) + value
            self.term_steps[name] = self.term_steps.get(name, 0) + 1
        self.seconds += info.seconds
        for name, seconds in info.spent.items():
            self.add_seconds(name, seconds)
        if info.step > first_step + WARM_UP_STEPS:
            self.timed_rows += info.rows
            self.timed_seconds += info.seconds

    def take_mean_loss(self) -> dict[str, float]:
        """The mean loss and terms since they were taken last: single batches differ too much to show a trend."""
        means = {f"loss/{name}": total / self.term_steps[name] for name, total in self.term_sums.items()}
        means["loss"] = self.loss_sum / self.loss_steps
        self.loss_sum, self.loss_steps, self.term_sums, self.term_steps = 0.0, 0, {}, {}
        return means

    def add_seconds(self, name: str, seconds: float) -> None:
        self.spent[name] = self.spent.get(name, 0.0) + seconds

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add_seconds(name, time.perf_counter() - start)

    def update_best(self, value: float, min_delta: float) -> bool:
        if self.best is None or not (isnan(value) or value <= self.best + min_delta):  # a best of NaN is beaten
            self.best, self.best_step, self.evaluations_without_gain = value, self.step, 0
            return True
        self.evaluations_without_gain += 1
        return False

    @property
    def examples_per_second(self) -> float | None:
        """Training speed; None if the run is too short to measure it."""
        return self.timed_rows / self.timed_seconds if self.timed_seconds else None


@dataclass(frozen=True)
class Intervals:
    """When to evaluate, save and log in a run of `total_steps`, and its learning rate. All durations are in steps."""

    total_steps: int
    warmup_steps: int
    evaluate_every: int
    save_every: int
    log_every: int
    settings: Train

    def learning_rate(self, step: int) -> float:
        settings = self.settings
        return learning_rate_at(step, self.total_steps, self.warmup_steps, settings.schedule, settings.learning_rate)

    def is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.total_steps

    def count_due(self, step: int, every: int) -> int:
        """Number of later steps after which what is due `every` so many steps is due."""
        is_last_apart = self.total_steps % every != 0 and step < self.total_steps
        return self.total_steps // every - step // every + is_last_apart

    def is_save_due(self, step: int, unsaved_seconds: float) -> bool:
        """Whether to save after `step`; not after the last, whose weights become the model."""
        is_asked_for = self.settings.save_every is not None or self.settings.save_every_steps is not None
        is_worth_it = is_asked_for or unsaved_seconds >= WORTH_SAVING
        return step % self.save_every == 0 and step != self.total_steps and is_worth_it


def build_intervals(settings: Train, total_steps: int) -> Intervals:
    warmup = settings.warmup_ratio if settings.warmup_ratio is not None else DEFAULT_WARMUP
    return Intervals(
        total_steps,
        settings.warmup_steps if settings.warmup_steps is not None else round(warmup * total_steps),
        duration_in_steps(settings.eval_every, settings.eval_every_steps, total_steps, DEFAULT_INTERVAL),
        duration_in_steps(settings.save_every, settings.save_every_steps, total_steps, DEFAULT_INTERVAL),
        settings.log_every_steps,
        settings,
    )
