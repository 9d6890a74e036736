"""Leakage between training and evaluation: metrics on training rows may reflect memorization."""

from dataclasses import dataclass

from stfit.data.checks.lint import fold
from stfit.data.mapping.examples import Examples
from stfit.data.table import name_rows
from stfit.errors import Problem


@dataclass(frozen=True)
class EvaluationRows:
    name: str
    origin: str
    examples: Examples


def shared_rows(training: Examples, evaluations: list[EvaluationRows]) -> list[Problem]:
    """Evaluators that share examples with training, in either order of the texts; case and whitespace are ignored."""
    training_keys = set(_example_keys(training))
    problems = []
    for evaluation in evaluations:
        rows = evaluation.examples.row.tolist()
        at = [row for row, key in zip(rows, _example_keys(evaluation.examples), strict=True) if key in training_keys]
        if at:
            message = (
                f"{len(at)} of {len(rows)} examples of evaluator `{evaluation.name}` are trained on, {name_rows(at)}: "
                "measure on other rows"
            )
            problems.append(Problem(message, "shared-rows", evaluation.origin, row=at[0]))
    return problems


def _example_keys(examples: Examples) -> list[frozenset[str]]:
    """One key per example: its text, or its two texts without their order; negatives are ignored."""
    columns = [[fold(text or "") for text in texts] for texts in list(examples.texts.values())[:2]]
    return [frozenset(texts) for texts in zip(*columns, strict=True)]
