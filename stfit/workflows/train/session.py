"""A training in progress: what is measured and saved between its steps, or when a signal interrupts one."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from stfit.distributed import LONG, barrier, collective_timeout, is_rank_zero, on_rank_zero, world_size
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.save import save_encoder
from stfit.errors import DataError, InterruptedRun, Problem, overflow_advice
from stfit.evaluation.base import When
from stfit.evaluation.measure import Evaluators, measure, values_of
from stfit.evaluation.statistic import Statistic
from stfit.events import Evaluated, StepInfo
from stfit.io.atomic import atomic_directory, atomic_write
from stfit.losses.softmax_classifier import NamedHead, load_head, save_head
from stfit.progress import task
from stfit.recipe.dump import to_yaml
from stfit.recipe.recipe import Recipe
from stfit.recipe.seal import seal
from stfit.runtime.malloc import return_freed_memory
from stfit.runtime.run_folder import RunFolder, find_damage, hash_model
from stfit.runtime.signals import SignalHandler
from stfit.runtime.system import peak_memory
from stfit.training.checkpoint import checkpoint_path, delete_old_checkpoints, save_checkpoint
from stfit.training.diagnostics import Diagnostics
from stfit.training.loop import TrainObjects, require_finite_weights
from stfit.training.state import Intervals, TrainState
from stfit.workflows.report.report_data import ReportData, Stage

log = logging.getLogger("stfit")

CHARACTERS_PER_TOKEN = 4


def log_problem(problem: Problem) -> None:
    log.warning("%s (%s)", problem, problem.code)


@dataclass(frozen=True)
class TrainingSession:
    recipe: Recipe
    folder: RunFolder
    signals: SignalHandler
    objects: TrainObjects
    evaluators: Evaluators
    intervals: Intervals
    state: TrainState
    fingerprint: dict[str, Any]
    """What the run is made of, kept in checkpoints to find changes on resume."""
    files: dict[Path, str]
    """Recipe and lock in the run folder."""
    diagnostics: Diagnostics
    report_data: ReportData
    statistics: dict[When, dict[str, Statistic]] = field(default_factory=dict)
    """Of the model before and after the training, as far as this process has measured them."""
    evaluation_seconds: dict[When, float] = field(default_factory=dict)
    """Of the last evaluation of each moment."""
    logged_peaks: set[str] = field(default_factory=set)
    """What has been done for the first time, with the memory that it took logged."""

    def measure_untrained(self) -> Evaluated:
        with self.objects.full_encoder() as encoder:
            self.state.baseline = self.measure(encoder, "start")
            self.record_samples(encoder, "start")
        self.folder.log({"step": 0, "event": "eval", **self.state.baseline})
        return Evaluated(0, self.state.baseline)

    def checkpoint_on_interrupt(self, steps: Iterator[StepInfo]) -> Iterator[StepInfo]:
        """The steps. If a signal or a bad row of a stream ends one, the state before it is saved."""
        try:
            yield from steps
        except InterruptedRun:
            self.save()
            self.raise_if_interrupted()
        except DataError:
            if world_size() == 1:  # with several processes, only this one may have failed
                self.save()
            raise

    def after(self, info: StepInfo, first_step: int) -> Iterator[StepInfo | Evaluated]:
        self.state.update(info, first_step)
        if self.intervals.is_due(info.step, self.intervals.log_every):
            entry = {**vars(info), **self.state.take_mean_loss(), "peak_rss_mib": peak_memory() / 2**20}
            del entry["terms"], entry["seconds_left"]  # the first are loss/TYPE; the second differs from run to run
            self.folder.log({"step": info.step, "event": "step", **entry})
        self.log_peak_memory("first step")
        for problem in self.diagnostics.check_step(info):
            self.warn(problem)
        yield replace(info, seconds_left=self.seconds_left(info))
        yield from self.evaluate()
        if self.signals.agreed_signal() or (self.is_save_due(info.step) and not self.is_over):
            self.save()
            self.raise_if_interrupted()

    def evaluate(self) -> Iterator[Evaluated]:
        """Run the evaluators if they are due after the last step and have not run yet; write the best model."""
        step = self.state.step
        is_due = self.intervals.is_due(step, self.intervals.evaluate_every)
        if not self.evaluators or self.state.measured_step == step or not is_due:
            return
        at_end = step == self.intervals.total_steps and self.recipe.train.best is None
        with self.interruptible(), self.objects.full_encoder() as encoder:
            metrics = self.measure(encoder, "end" if at_end else "during")
        self.state.measured_step = step
        self.state.metrics |= metrics
        self.folder.log({"step": step, "event": "eval", **metrics})
        yield Evaluated(step, metrics)
        if self.improves(metrics):
            self.write_model()

    def end(self) -> Iterator[Evaluated]:
        """Write the final model; with `train.best`, measure the one that is there instead."""
        self.restore_files()
        if self.recipe.train.best is None:
            with self.interruptible():
                self.write_model()
                with self.objects.full_encoder() as encoder:
                    self.record_samples(encoder, "end")
        else:  # report the metrics of the model that is kept
            self.require_best()
            with self.interruptible():
                best = load_encoder(self.folder.model, str(self.objects.encoder.device))
                self.state.metrics = self.measure(best, "end", load_head(self.folder.model))
                self.record_samples(best, "end")
            yield Evaluated(self.state.step, self.state.metrics)

    def require_best(self) -> None:
        """The last model instead of the best one, if somebody has deleted that."""
        if damage := find_damage(self.folder, self.state.weights):
            log.warning("%s: the best model is lost, and the last one is kept", damage)
            self.write_model()

    def measure(self, encoder: Encoder, moment: When, head: NamedHead | None = None) -> dict[str, float]:
        """Metrics of the evaluators that run at this moment; the same in all processes.

        `head`: that of the encoder, if it is not the one in training.
        """
        start = time.perf_counter()
        with self.state.timed("evaluation"), collective_timeout(LONG):
            dims, head = self.recipe.matryoshka_dims, head or self.objects.head
            statistics = measure(encoder, self.evaluators, moment, dims, head=head)
            if moment != "during":
                self.statistics[moment] = statistics
                self.report_data.record_metrics(moment, statistics)
        self.evaluation_seconds[moment] = time.perf_counter() - start
        if statistics:
            self.log_peak_memory("first evaluation")
        values = values_of(statistics)
        if undefined := [name for name, value in values.items() if math.isnan(value)]:
            advice = overflow_advice(encoder.precision)
            message = f"{', '.join(undefined)}: undefined, probably because numbers overflow. {advice}"
            self.warn(Problem(message, "undefined-metric"))
        return values

    def log_peak_memory(self, moment: str) -> None:
        """Say it once for each moment, early enough to stop a run that will not fit."""
        if moment not in self.logged_peaks:
            self.logged_peaks.add(moment)
            log.info("peak memory %.1f GiB after the %s", peak_memory() / 2**30, moment)

    def warn(self, problem: Problem) -> None:
        log_problem(problem)
        self.report_data.record_problem(problem)

    def record_samples(self, encoder: Encoder, stage: Stage) -> None:
        with self.state.timed("evaluation"):
            self.report_data.record_samples(stage, encoder)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that a signal ends at once; the state after the last step is then saved."""
        try:
            with self.signals.interruptible():
                yield
        except InterruptedRun:
            self.save()
            self.raise_if_interrupted()

    def raise_if_interrupted(self) -> None:
        self.signals.raise_if_received(f"step {self.state.step} is saved; run the same command to resume")

    def restore_files(self) -> None:
        """Write recipe and lock again if somebody has deleted them: without them, the folder is no run."""
        for path, text in self.files.items():
            if is_rank_zero() and not path.is_file():
                log.warning("%s was deleted while the run trained, and is written again", path)
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(path, text)

    def is_save_due(self, step: int) -> bool:
        """The same in all processes, whose clocks differ."""
        if not self.intervals.is_save_due(step, math.inf):
            return False
        unsaved = self.state.seconds - self.state.saved_seconds
        return on_rank_zero(lambda: self.intervals.is_save_due(step, unsaved))

    def save(self) -> None:
        self.restore_files()
        path = checkpoint_path(self.folder.checkpoints, self.state.step)
        self.state.saved_seconds = self.state.seconds
        with self.state.timed("saving"), task(f"saving step {self.state.step}"):
            save_checkpoint(path, self.objects, self.facts)
        if is_rank_zero():
            delete_old_checkpoints(self.folder.checkpoints, self.recipe.train.keep_checkpoints)

    def seconds_left(self, info: StepInfo) -> float:
        """Until the end, after this step: the steps and the evaluations that are left."""
        train, total_steps = self.recipe.train, self.intervals.total_steps
        due = self.intervals.count_due(info.step - 1, self.intervals.evaluate_every)  # this step's comes, too
        times: dict[When, int] = {"during": due - (train.best is None), "end": 1}
        if any(gate.against == "base" and gate.metric not in self.state.baseline for gate in self.recipe.gate):
            times["end"] += 1
        of_steps = self.state.seconds / info.step * (total_steps - info.step)
        return of_steps + sum(number * self._evaluation_seconds_at(moment, info) for moment, number in times.items())

    def _evaluation_seconds_at(self, moment: When, info: StepInfo) -> float:
        """As measured; else by the number of characters, from another moment or from a step, whose third is forward."""
        if moment in self.evaluation_seconds:
            return self.evaluation_seconds[moment]
        characters = self._evaluation_characters
        for other, seconds in self.evaluation_seconds.items():
            if characters[other]:
                return seconds * characters[moment] / characters[other]
        return characters[moment] / CHARACTERS_PER_TOKEN * info.seconds / (3 * max(1, info.tokens))

    @cached_property
    def _evaluation_characters(self) -> dict[When, int]:
        """Moment -> characters of the texts that are embedded."""
        of_evaluator = [
            (evaluator, sum(len(text) for column in rows.texts.values() for text in column if text))
            for evaluator, rows in self.evaluators
        ]
        return {
            moment: sum(number for evaluator, number in of_evaluator if moment in evaluator.when)
            for moment in get_args(When)
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint holds besides tensors."""
        resolved = seal(to_yaml(self.recipe))
        return {"progress": vars(self.state), "made": self.fingerprint, "resolved": resolved}

    def write_model(self) -> None:
        with self.objects.full_encoder() as encoder:
            require_finite_weights(encoder)
            if is_rank_zero():
                with (
                    self.state.timed("saving"),
                    task("saving the model"),
                    atomic_directory(self.folder.model) as scratch,
                ):
                    return_freed_memory()  # a saved model is loaded once, to prove that it is the trained one
                    save_encoder(encoder, scratch)
                    if head := self.objects.head:
                        save_head(scratch, head)
                    return_freed_memory()
                self.state.weights = hash_model(self.folder.model)
            barrier()  # no process may read the model before it is written

    def improves(self, metrics: dict[str, float]) -> bool:
        best, stopping = self.recipe.train.best, self.recipe.train.early_stopping
        if best is None or best not in metrics:
            return False
        return self.state.update_best(metrics[best], stopping.min_delta if stopping else 0.0)

    @property
    def is_over(self) -> bool:
        stopping = self.recipe.train.early_stopping
        return stopping is not None and self.state.evaluations_without_gain >= stopping.patience
