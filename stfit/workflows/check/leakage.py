"""Texts that training and evaluation share: found for `check` and `train`, and left out with `data.drop_overlap`."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from stfit.data.batching.shuffle_buffer import read_examples
from stfit.data.checks.leakage import ADVICE, Measured, numbers_in, separating_roles, shared_texts, without_texts
from stfit.data.checks.near_duplicates import near_duplicates
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.selectors import WILDCARD
from stfit.data.reading.load_table import open_blocks
from stfit.data.source import ROWS_SEED, TrainingData
from stfit.errors import DataError, Problem
from stfit.evaluation.base import TrainAndHoldout
from stfit.evaluation.measure import Evaluators
from stfit.evaluation.registry import Evaluator
from stfit.io.yaml_text import to_hint
from stfit.progress import task
from stfit.recipe.recipe import Recipe


def find_leakage(
    recipe: Recipe, training: Mapping[str, Examples], evaluators: Evaluators, full: bool = False
) -> list[Problem]:
    """Warnings about evaluators; `full` reads streams to their end, and finds near-duplicates."""
    measured = measured_texts(recipe, evaluators)
    if not measured:
        return []
    advice = partial(_advice, recipe, training)
    with task("looking for evaluation texts in the training texts"):
        problems = shared_texts(_blocks(recipe, training, evaluators, full), measured, advice)
        return problems + (near_duplicates(_blocks(recipe, training, evaluators, full), measured) if full else [])


def _blocks(recipe: Recipe, training: Mapping[str, Examples], evaluators: Evaluators, full: bool) -> Iterator[Examples]:
    for key, objective in recipe.objectives_by_path.items():
        source = objective.data
        if full and source.streaming:
            yield from map(leave_out_overlap(recipe, source, evaluators), read_examples(open_blocks(source)(), source))
        else:
            yield training[key]


def _advice(recipe: Recipe, training: Mapping[str, Examples], measured: Measured) -> str:
    """How to separate a holdout from the rows it was taken from; if that is not enough, to measure other rows."""
    if measured.is_held_out and len(training) == 1:
        ((key, examples),) = training.items()
        columns = recipe.objectives_by_path[key].data.columns
        for role in separating_roles(examples, measured):
            column = columns.get(role, role)
            if isinstance(column, str) and WILDCARD not in column:
                return f"write `holdout: {{by: {to_hint(column)}}}`, so that all rows of one {role} are on one side"
    return ADVICE


def measured_texts(recipe: Recipe, evaluators: Evaluators) -> list[Measured]:
    return [
        Measured(
            evaluator.label,
            dataset_of(evaluator, recipe),
            evaluator.columns_of(rows),
            examples,
            evaluator.from_ == "holdout",
        )
        for evaluator, rows in evaluators
        if (examples := evaluator.examples_of(rows)) is not None
    ]


def dataset_of(evaluator: Evaluator, recipe: Recipe) -> str:
    source = recipe.holdout_source
    return evaluator.origin or (source.dataset if source else "")


def leave_out_overlap(recipe: Recipe, source: TrainingData, evaluators: Evaluators) -> Callable[[Examples], Examples]:
    """A function that leaves out the rows which the source's `drop_overlap` is about."""
    if not source.drop_overlap:
        return lambda examples: examples
    return partial(without_texts, known=numbers_in(measured_texts(recipe, evaluators)))


def drop_overlap(recipe: Recipe, source: TrainingData, training: Examples, evaluators: Evaluators) -> Examples:
    """The training rows without those that `drop_overlap` leaves out. Raises DataError if none are left."""
    kept = leave_out_overlap(recipe, source, evaluators)(training)
    if not len(kept):
        message = f"`drop_overlap` leaves none of {len(training)} examples: each has a text that an evaluator has"
        raise DataError(Problem(message, "no-rows", source.dataset, key="drop_overlap"))
    return kept


def load_evaluators(recipe: Recipe, held_out: TrainAndHoldout | None) -> Evaluators:
    return [(evaluator, evaluator.load(ROWS_SEED, held_out)) for evaluator in recipe.eval]


def with_kept_rows(evaluators: Evaluators, held_out: TrainAndHoldout) -> Evaluators:
    """Evaluators on a holdout that learn from the training rows learn from those that are kept."""
    return [
        (evaluator, evaluator.load(ROWS_SEED, held_out) if evaluator.from_ == "holdout" else rows)
        for evaluator, rows in evaluators
    ]
