"""What a run records for its report: warnings, text lengths, resampled metrics, and embeddings of some rows.

None of it uses the random generators of the training, and a failure is logged without ending the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stfit.data.batching.batches import TokenTable
from stfit.data.source import Source
from stfit.errors import Problem
from stfit.evaluation.bootstrap import RESAMPLES, TAIL, min_rows, resample
from stfit.evaluation.measure import Evaluators, evaluator_of, prompt_of
from stfit.evaluation.report_samples import Sample, build_sample
from stfit.evaluation.slices import summarize_slices
from stfit.evaluation.statistic import Statistic
from stfit.io.atomic import atomic_write
from stfit.io.json_files import load_json_object, seal_json
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import RunFolder
from stfit.training.state import DEFAULT_EPOCHS

if TYPE_CHECKING:
    from stfit.encoder.encoder import Encoder
    from stfit.workflows.check.validate import Prepared

log = logging.getLogger("stfit")

Stage = Literal["start", "end"]

MAX_DRAWN_ROWS = 20_000_000
"""Rows drawn to resample one metric: about a second on a CPU."""
MIN_DRAWS = 100


@contextmanager
def log_exceptions(action: str) -> Iterator[None]:
    """Log an exception of the block instead of raising it: no report is worth losing a training."""
    try:
        yield
    except Exception as error:
        log.warning("%s failed; the run continues: %s: %s", action, type(error).__name__, error)


@dataclass
class ReportData:
    """The record of a run, written to its folder after every change."""

    folder: RunFolder
    main: Sequence[str]
    """The metrics to resample."""
    samples: list[Sample]
    rows_of: dict[str, str | None]
    """Evaluator -> fingerprint of the rows that it measures on."""
    facts: dict[str, Any] = field(default_factory=dict)

    def begin(self, tables: Sequence[TokenTable], max_seq_length: int | None, warnings: Sequence[Problem]) -> None:
        lengths = np.concatenate([table.lengths() for table in tables])
        length, count = np.unique(lengths, return_counts=True)
        self.facts = {
            "warnings": [_problem_to_dict(problem) for problem in warnings],
            "lengths": {"tokens": length.tolist(), "texts": count.tolist(), "limit": max_seq_length},
            "samples": [sample.to_dict() for sample in self.samples],
        }

    def record_problem(self, problem: Problem) -> None:
        """Record a warning once: a resumed run may repeat the step that gave it."""
        with log_exceptions("recording a warning for the report"):
            warnings = self.facts.setdefault("warnings", [])
            if _problem_to_dict(problem) not in warnings:
                warnings.append(_problem_to_dict(problem))
                self.write()

    def record_metrics(self, stage: Stage, statistics: dict[str, Statistic]) -> None:
        with log_exceptions("resampling the metrics for the report"):
            self.facts.setdefault("drawn", {})[stage] = {
                name: {
                    "rows": self.rows_of.get(evaluator_of(name, self.rows_of)),
                    "values": resample(statistics[name], _draws_for(statistics[name].rows)).round(6).tolist(),
                }
                for name in self.main
                if name in statistics and statistics[name].rows >= min_rows(TAIL)
            }
            slices = {name: summarize_slices(statistics, name, evaluator_of(name, self.rows_of)) for name in self.main}
            self.facts.setdefault("slices", {})[stage] = {name: parts for name, parts in slices.items() if parts}
            self.write()

    def record_samples(self, stage: Stage, encoder: Encoder) -> None:
        with log_exceptions("embedding rows for the report"):
            self.facts.setdefault("seen", {})[stage] = [sample.snapshot(encoder) for sample in self.samples]
            self.write()

    def write(self) -> None:
        atomic_write(self.folder.record, seal_json(self.facts, indent=None))


def _problem_to_dict(problem: Problem) -> dict[str, str]:
    return {"code": problem.code, "message": str(problem)}


def open_report_data(
    folder: RunFolder, recipe: Recipe, prepared: Prepared, evaluators: Evaluators, main: Sequence[str]
) -> ReportData:
    rows_of = {}
    for evaluator, rows in evaluators:
        examples = evaluator.examples_of(rows)
        rows_of[evaluator.label] = examples.fingerprint if examples is not None else None
    samples: list[Sample] = []
    with log_exceptions("choosing rows for the report"):
        samples = choose_samples(recipe, prepared, evaluators)
    return ReportData(folder, main, samples, rows_of, load_json_object(folder.record) or {})


def _count_trained_rows(recipe: Recipe, prepared: Prepared) -> int:
    """Rows of all steps; of several processes, those of one."""
    train = recipe.train
    if train.max_steps is not None:
        return train.max_steps * train.batch_size * train.accumulate_steps
    return int((train.epochs or DEFAULT_EPOCHS) * sum(map(len, prepared.training)))


def choose_samples(recipe: Recipe, prepared: Prepared, evaluators: Evaluators) -> list[Sample]:
    """At most one sample of each format, of evaluation rows; training rows for labeled texts, or if there are none."""
    samples: dict[str, Sample] = {}
    trained = _count_trained_rows(recipe, prepared)
    for evaluator, rows in evaluators:
        examples = evaluator.examples_of(rows)
        if examples is not None and len(examples) > 1 and examples.format not in samples:
            samples[examples.format] = build_sample(evaluator.label, examples, partial(prompt_of, evaluator), trained)
    for objective, examples in zip(recipe.objectives_by_path.values(), prepared.training, strict=True):
        needed = not samples or (examples.format == "labeled_text" and examples.format not in samples)
        if needed and len(examples) > 1:
            prompt_in_training = partial(_prompt_in_training, objective.data)
            samples[examples.format] = build_sample("training rows", examples, prompt_in_training, trained)
    return list(samples.values())


def _prompt_in_training(source: Source, encoder: Encoder, role: str) -> str:
    return encoder.role_prompt(role, source.prompts)


def _draws_for(rows: int) -> int:
    """Number of bootstrap draws: fewer for many rows, whose metric varies less."""
    return int(np.clip(MAX_DRAWN_ROWS // max(rows, 1), MIN_DRAWS, RESAMPLES))
