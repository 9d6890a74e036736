"""What a run notes down for its report while it is under way: its data, and what the model makes of some rows of it.

Nothing of this draws from the generators that training draws from, and a failure of it is said and costs no training.
"""

from __future__ import annotations

import json
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
from stfit.evaluation.bootstrap import RESAMPLES, resample
from stfit.evaluation.measure import Evaluators, evaluator_of, prompt_of
from stfit.evaluation.report_samples import Sample, build_sample
from stfit.evaluation.statistic import Statistic
from stfit.io.atomic import atomic_write
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import RunFolder

if TYPE_CHECKING:
    from stfit.encoder.encoder import Encoder
    from stfit.workflows.validate import Prepared

log = logging.getLogger("stfit")

Stage = Literal["start", "end"]

MOST_DRAWN = 20_000_000
"""Rows drawn to resample one metric: a second of a CPU."""
FEWEST_DRAWS = 100


@contextmanager
def log_exceptions(what: str) -> Iterator[None]:
    """A block whose failure is no reason to lose the training that it tells of: it is said, and that is all."""
    try:
        yield
    except Exception as error:
        log.warning("%s failed, the training goes on without: %s: %s", what, type(error).__name__, error)


@dataclass
class ReportData:
    """The notes of a run."""

    folder: RunFolder
    main: Sequence[str]
    """The metrics that are resampled."""
    samples: list[Sample]
    rows_of: dict[str, str | None]
    """Evaluator -> fingerprint of the rows that it measures on."""
    facts: dict[str, Any] = field(default_factory=dict)

    def begin(self, tables: Sequence[TokenTable], max_seq_length: int | None, warnings: Sequence[Problem]) -> None:
        """What is known before the first step."""
        lengths = np.concatenate([table.lengths() for table in tables])
        length, count = np.unique(lengths, return_counts=True)
        self.facts = {
            "warnings": [_problem_to_dict(problem) for problem in warnings],
            "lengths": {"tokens": length.tolist(), "texts": count.tolist(), "limit": max_seq_length},
            "samples": [sample.described() for sample in self.samples],
        }

    def note_problem(self, problem: Problem) -> None:
        """Something that is wrong with the steps; once, though a process that goes on takes some of them again."""
        with log_exceptions("to note a warning for the report"):
            warnings = self.facts.setdefault("warnings", [])
            if _problem_to_dict(problem) not in warnings:
                warnings.append(_problem_to_dict(problem))
                self.write()

    def note_metrics(self, moment: Stage, found: dict[str, Statistic]) -> None:
        """What the main metrics would be on rows like those they were measured on."""
        with log_exceptions("to resample the metrics for the report"):
            self.facts.setdefault("drawn", {})[moment] = {
                name: {
                    "rows": self.rows_of.get(evaluator_of(name)),
                    "values": resample(found[name], _draws_for(found[name].rows)).round(6).tolist(),
                }
                for name in self.main
                if name in found and found[name].rows
            }
            self.write()

    def note_samples(self, moment: Stage, encoder: Encoder) -> None:
        """What a model makes of the rows."""
        with log_exceptions("to embed rows for the report"):
            self.facts.setdefault("seen", {})[moment] = [sample.seen_by(encoder) for sample in self.samples]
            self.write()

    def write(self) -> None:
        """Keep the notes."""
        atomic_write(self.folder.record, json.dumps(self.facts, ensure_ascii=False) + "\n")


def _problem_to_dict(problem: Problem) -> dict[str, str]:
    """A problem as the report shows it."""
    return {"code": problem.code, "message": str(problem)}


def open_report_data(
    folder: RunFolder, recipe: Recipe, prepared: Prepared, evaluators: Evaluators, main: Sequence[str]
) -> ReportData:
    """The notes of a run; those of an earlier process of it are kept."""
    rows_of = {}
    for evaluator, rows in evaluators:
        examples = evaluator.examples_of(rows)
        rows_of[evaluator.label] = examples.fingerprint if examples is not None else None
    samples: list[Sample] = []
    with log_exceptions("to choose rows for the report"):
        samples = choose_samples(recipe, prepared, evaluators)
    return ReportData(folder, main, samples, rows_of, folder.read_record() or {})


def choose_samples(recipe: Recipe, prepared: Prepared, evaluators: Evaluators) -> list[Sample]:
    """Held-out rows, at most one set of each format; labelled texts, and where nothing is held out, of the training."""
    found: dict[str, Sample] = {}
    for evaluator, rows in evaluators:
        examples = evaluator.examples_of(rows)
        if examples is not None and len(examples) > 1 and examples.format not in found:
            found[examples.format] = build_sample(evaluator.label, examples, partial(prompt_of, evaluator))
    for objective, examples in zip(recipe.objectives_by_path.values(), prepared.training, strict=True):
        wanted = not found or (examples.format == "labeled_text" and examples.format not in found)
        if wanted and len(examples) > 1:
            name = "rows that it was trained on"
            found[examples.format] = build_sample(name, examples, partial(_prompt_in_training, objective.data))
    return list(found.values())


def _prompt_in_training(source: Source, encoder: Encoder, role: str) -> str:
    """What stands before the texts of a role of the training data."""
    return encoder.role_prompt(role, source.prompts)


def _draws_for(rows: int) -> int:
    """How often rows are drawn anew: less often where there are very many, whose metric varies less."""
    return int(np.clip(MOST_DRAWN // max(rows, 1), FEWEST_DRAWS, RESAMPLES))
