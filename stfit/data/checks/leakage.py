"""Leakage between training and evaluation: metrics of rows that were trained on may reflect memorization."""

from __future__ import annotations

from dataclasses import dataclass

from stfit.data.checks.lint import fold
from stfit.data.mapping.examples import Examples
from stfit.data.table import name_rows
from stfit.errors import Problem


@dataclass(frozen=True)
class EvaluationRows:
    """The rows of one evaluator; `name` is the evaluator's, `origin` where they were read from."""

    name: str
    origin: str
    examples: Examples


def shared_rows(training: Examples, evaluations: list[EvaluationRows]) -> list[Problem]:
    """Evaluators whose examples are trained on too, in either order of the texts; case and whitespace are ignored."""
    trained = set(_keys_of(training))
    problems = []
    for evaluation in evaluations:
        rows = evaluation.examples.row.tolist()
        at = [row for row, key in zip(rows, _keys_of(evaluation.examples), strict=True) if key in trained]
        if at:
            message = (
                f"{len(at)} of {len(rows)} examples of evaluator `{evaluation.name}` are trained on, {name_rows(at)}: "
                "measure on other rows"
            )
            problems.append(Problem(message, "shared-rows", evaluation.origin, row=at[0]))
    return problems


def _keys_of(examples: Examples) -> list[frozenset[str]]:
    """One key per example: its text, or its two texts without their order; negatives are ignored."""
    columns = [[fold(text or "") for text in texts] for texts in list(examples.texts.values())[:2]]
    return [frozenset(texts) for texts in zip(*columns, strict=True)]
