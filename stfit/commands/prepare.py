"""What train and check do first: the data of a recipe, loaded and held against what its loss and evaluators need."""

from __future__ import annotations

from dataclasses import dataclass

from stfit.data.examples import Examples, load_examples
from stfit.data.fit import check_format, check_labels
from stfit.errors import DataError, Problem, RecipeError
from stfit.evaluation.evaluator import Evaluator
from stfit.evaluation.measure import Evaluators
from stfit.losses.loss import LOSSES
from stfit.recipe.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """The rows a recipe trains on, and those of each evaluator, in the recipe's order."""

    training: Examples
    evaluation: list[Examples]


def prepare(recipe: Recipe) -> Prepared:
    """Load and check all data of a recipe. Problems of several sources are raised together.

    Raises RecipeError where loss and format don't fit, DataError where rows, columns or labels don't.
    """
    check_format(recipe.loss.type, recipe.data.format, {loss.tag(): loss.fits for loss in LOSSES})
    problems: list[Problem] = []
    held_out = None
    try:
        training, held_out = load_examples(recipe.data, recipe.data.format, recipe.seed, recipe.data.holdout)
        check_labels(recipe.loss.type, recipe.loss.fits, training)
    except DataError as error:
        problems += error.problems
    evaluation = []
    for evaluator in recipe.eval:
        if evaluator.from_ == "holdout" and held_out is None:
            continue  # what is wrong with the training data has been noted
        try:
            evaluation.append(evaluation_rows(evaluator, held_out, recipe.seed))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return Prepared(training, evaluation)


def prepare_evaluation(recipe: Recipe) -> Evaluators:
    """Evaluators with their rows, for a model that is there already."""
    held_out = None
    if any(evaluator.from_ == "holdout" for evaluator in recipe.eval):
        _, held_out = load_examples(recipe.data, recipe.data.format, recipe.seed, recipe.data.holdout)
    return [(evaluator, evaluation_rows(evaluator, held_out, recipe.seed)) for evaluator in recipe.eval]


def evaluation_rows(evaluator: Evaluator, held_out: Examples | None, seed: int) -> Examples:
    """The rows one evaluator measures on."""
    if evaluator.from_ is None:
        examples, _ = load_examples(evaluator, evaluator.format, seed)
        return examples
    assert held_out is not None  # the recipe refuses `from: holdout` without data.holdout
    if held_out.format != evaluator.format:
        raise RecipeError(
            f"evaluator `{evaluator.label}` measures {evaluator.format} rows, but the holdout is {held_out.format}"
        )
    return held_out
