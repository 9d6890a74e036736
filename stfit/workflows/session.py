"""A training under way: what is measured, saved and given up between its steps, at a signal too."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stfit.distributed import barrier, is_rank_zero, world_size
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.save import save_encoder
from stfit.errors import DataError, InterruptedRun, Problem
from stfit.evaluation.base import When
from stfit.evaluation.measure import Evaluators, measure, values_of
from stfit.io.atomic import atomic_directory
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import RunFolder
from stfit.runtime.signals import SignalHandler
from stfit.training.checkpoint import checkpoint_path, delete_old_checkpoints, save_checkpoint
from stfit.training.diagnostics import Diagnostics
from stfit.training.loop import StepInfo, TrainObjects, require_finite_weights
from stfit.training.state import Intervals, TrainState
from stfit.workflows.report_data import ReportData, Stage

log = logging.getLogger("stfit")


@dataclass(frozen=True)
class Started:
    """Everything is ready for the first step. `main` names the metrics worth a place in a table."""

    run: Path
    rows: int | None
    """Examples to train on; None where a stream is among them."""
    dropped: dict[str, int]
    first_step: int
    total_steps: int
    main: list[str]


@dataclass(frozen=True)
class Evaluated:
    """The evaluators ran after `step` (0: before the first)."""

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Saved:
    """A checkpoint or a model was written after `step`."""

    step: int
    path: Path


@dataclass(frozen=True)
class TrainingSession:
    """Everything that one process trains with."""

    recipe: Recipe
    folder: RunFolder
    stop: SignalHandler
    learner: TrainObjects
    evaluators: Evaluators
    calendar: Intervals
    progress: TrainState
    made: dict[str, Any]
    """What the run is made of."""
    health: Diagnostics
    record: ReportData

    def saved_where_given_up(self, steps: Iterator[StepInfo]) -> Iterator[StepInfo]:
        """The steps; where a signal, or a wrong row of a stream, ends one, the state before it is kept."""
        try:
            yield from steps
        except InterruptedRun:
            self.save()
            self.leave_if_asked()
        except DataError:
            if world_size() == 1:  # of several processes, one may be alone with it
                self.save()
            raise

    def after(self, info: StepInfo, first_step: int) -> Iterator[StepInfo | Evaluated | Saved]:
        """What is due after a step."""
        self.progress.update(info, first_step)
        if self.calendar.is_due(info.step, self.calendar.log_every):
            self.folder.log({"step": info.step, "event": "step", **vars(info)})
        for problem in self.health.check_step(info):
            self.warn(problem)
        yield info
        yield from self.evaluate()
        if self.stop.is_received() or (self.calendar.is_save_due(info.step) and not self.is_over):
            yield self.save()
            self.leave_if_asked()

    def evaluate(self) -> Iterator[Evaluated | Saved]:
        """Measure, where it is due after the last step and has not been done; keep the best."""
        step = self.progress.step
        if not self.evaluators or self.progress.measured_step == step or not self.calendar.is_evaluation_due(step):
            return
        at_end = step == self.calendar.total_steps and self.recipe.train.best is None
        with self.saved_at_signal(), self.learner.full_encoder() as encoder:
            metrics = self.measure(encoder, "end" if at_end else "during")
        self.progress.measured_step = step
        self.progress.metrics |= metrics
        self.folder.log({"step": step, "event": "eval", **metrics})
        yield Evaluated(step, metrics)
        if self.improves(metrics):
            yield self.write_model()

    def end(self) -> Iterator[Evaluated | Saved]:
        """The model, and what it measures."""
        if self.recipe.train.best is None:
            with self.saved_at_signal():
                saved = self.write_model()
                with self.learner.full_encoder() as encoder:
                    self.look(encoder, "end")
            yield saved
        else:  # what is reported is what the model folder holds
            with self.saved_at_signal():
                best = load_encoder(self.folder.model, str(self.learner.encoder.device))
                self.progress.metrics = self.measure(best, "end")
                self.look(best, "end")
            yield Evaluated(self.progress.step, self.progress.metrics)

    def measure(self, encoder: Encoder, moment: When) -> dict[str, float]:
        """What the evaluators of a moment find; the same in all processes."""
        with self.progress.timed("evaluation"):
            found = measure(encoder, self.evaluators, moment, self.recipe.matryoshka_dims)
            if moment != "during":
                self.record.note_metrics(moment, found)
        values = values_of(found)
        if undefined := [name for name, value in values.items() if math.isnan(value)]:
            message = f"{', '.join(undefined)}: undefined, as where numbers overflow. Lower train.learning_rate"
            self.warn(Problem(message, "undefined-metric"))
        return values

    def warn(self, problem: Problem) -> None:
        """Say what is wrong with the training, and keep it for the report."""
        log.warning("%s (%s)", problem, problem.code)
        self.record.note_problem(problem)

    def look(self, encoder: Encoder, moment: Stage) -> None:
        """Note what the model makes of some rows, for the report."""
        with self.progress.timed("evaluation"):
            self.record.note_samples(moment, encoder)

    @contextmanager
    def saved_at_signal(self) -> Iterator[None]:
        """A block that a signal ends at once, and the last step is kept."""
        try:
            with self.stop.interruptible():
                yield
        except InterruptedRun:
            self.save()
            self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Raise InterruptedRun, if there was a signal."""
        self.stop.raise_if_received(f"step {self.progress.step} is saved, the same command goes on from there")

    def save(self) -> Saved:
        """Keep the state after the last step."""
        path = checkpoint_path(self.folder.checkpoints, self.progress.step)
        with self.progress.timed("saving"):
            save_checkpoint(path, self.learner, {"progress": vars(self.progress), "made": self.made})
        if is_rank_zero():
            delete_old_checkpoints(self.folder.checkpoints, self.recipe.train.keep_checkpoints)
        return Saved(self.progress.step, path)

    def write_model(self) -> Saved:
        """The encoder as a model folder, in the place of the one before.

        Raises DivergedError for weights that are not finite.
        """
        with self.learner.full_encoder() as encoder:
            require_finite_weights(encoder)
            if is_rank_zero():
                with self.progress.timed("saving"), atomic_directory(self.folder.model) as scratch:
                    save_encoder(encoder, scratch)
            barrier()  # who reads it next, reads this one
        return Saved(self.progress.step, self.folder.model)

    def improves(self, metrics: dict[str, float]) -> bool:
        """Whether an evaluation holds a new best value of the recipe's `best` metric."""
        best, stopping = self.recipe.train.best, self.recipe.train.early_stopping
        if best is None or best not in metrics:
            return False
        return self.progress.update_best(metrics[best], stopping.min_delta if stopping else 0.0)

    @property
    def is_over(self) -> bool:
        """Whether early stopping ends the run now."""
        stopping = self.recipe.train.early_stopping
        return stopping is not None and self.progress.evaluations_without_gain >= stopping.patience
