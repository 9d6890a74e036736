"""What train and check do first: the data of a recipe, loaded, and everything held against everything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from stfit.data.batching.shuffle_buffer import read_first_examples, read_rows_until
from stfit.data.checks.compatibility import check_labels
from stfit.data.checks.leakage import EvaluationRows, shared_rows
from stfit.data.checks.lint import lint_evaluation, lint_training
from stfit.data.checks.unused_rows import dropped_rows, unread_flags
from stfit.data.mapping.examples import Examples, load_examples
from stfit.data.reading.load_table import load_table
from stfit.data.source import LABELED, TrainingData
from stfit.encoder.config import Model
from stfit.encoder.folder.inspect import inspect_model
from stfit.encoder.folder.model_config import ModelInfo
from stfit.errors import DataError, HubError, ModelError, Problem, RecipeError, StfitError, at_key
from stfit.evaluation.base import TrainAndHoldout
from stfit.evaluation.measure import Evaluators
from stfit.evaluation.registry import Evaluator
from stfit.hub.explain import OUT_OF_REACH
from stfit.losses.base import TeacherLoss
from stfit.losses.pairs import Softmax
from stfit.recipe.marked_yaml import Mark
from stfit.recipe.recipe import Objective, Recipe
from stfit.workflows.lint import ERRORS, WARNINGS, embedding_dim, lint_recipe


@dataclass(frozen=True)
class Prepared:
    """The rows of each objective and of each evaluator, in the recipe's order, and what a user should know."""

    training: list[Examples]
    evaluation: list[Any]
    warnings: list[Problem]

    def all_texts(self) -> Iterator[str]:
        """Every text that is trained on."""
        return (text for examples in self.training for text in examples.all_texts())


@dataclass
class ValidationReport:
    """The same where something may be wrong: what could be loaded, and every mistake."""

    base: ModelInfo = field(default_factory=ModelInfo)
    training: dict[str, Examples] = field(default_factory=dict)
    """By the start of the objective's keys (see Recipe.objectives_by_path)."""
    evaluation: list[Any] = field(default_factory=list)
    errors: list[StfitError] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @contextmanager
    def noting(self, origin: str | None = None, said: RecipeLocation | None = None) -> Iterator[None]:
        """Go on after what a user can mend, and note it, with the dataset it is in, and where a recipe names that."""
        try:
            yield
        except (RecipeError, DataError, ModelError, HubError) as error:
            problems = [replace(problem, file=problem.file or origin) for problem in error.problems]
            self.errors.append(type(error)([said.place(problem) for problem in problems] if said else problems))


@dataclass(frozen=True)
class RecipeLocation:
    """Where a recipe speaks of something: a section, and the key in it that names the thing itself."""

    origins: Mapping[str, Mark]
    section: str
    main: str

    def place(self, problem: Problem) -> Problem:
        """A problem with its place in the recipe; one of a row keeps that of its file, and is shown both."""
        inner = [problem.key, problem.key.partition(".")[0]] if problem.key else []
        keys = [*(f"{self.section}.{key}" for key in (*inner, self.main)), self.section]
        mark = next((self.origins[key] for key in keys if key in self.origins), None)
        if mark is None or problem.snippet:
            return problem
        if problem.row is not None:
            return replace(problem, snippet=mark.problem("", "").snippet)
        return mark.problem(f"{problem.file}: {problem.message}" if problem.file else problem.message, problem.code)


def load_and_validate(recipe: Recipe, origins: Mapping[str, Mark] | None = None) -> Prepared:
    """Load and check everything but the weights. Mistakes of all kinds are raised together, as the first of them.

    `origins`: where each key was written, for warnings. Raises RecipeError, DataError, ModelError or HubError.
    """
    found = validate(recipe, origins or {})
    if found.errors:
        raise first_of(found.errors)
    return Prepared(list(found.training.values()), found.evaluation, found.warnings)


def fail_fast(recipe: Recipe, origins: Mapping[str, Mark]) -> None:
    """Raise as `load_and_validate` does if the recipe alone is wrong, before torch is imported (seconds)."""
    if lint_recipe(ERRORS, recipe, ModelInfo(), origins):
        load_and_validate(recipe, origins)


def first_of(errors: Sequence[StfitError]) -> StfitError:
    """The error of the lowest exit code, with the problems of all."""
    first = min(errors, key=lambda error: error.exit_code)
    return type(first)([problem for error in errors for problem in error.problems])


def validate(recipe: Recipe, origins: Mapping[str, Mark]) -> ValidationReport:
    """Everything that can be known of a run before its weights are loaded."""
    found = ValidationReport()
    with found.noting(said=RecipeLocation(origins, "model", "base")):
        found.base = _inspect_if_reachable(recipe.model, found)
    with found.noting():
        _check_recipe(recipe, origins, found)
    own: TrainAndHoldout | None = None
    for key, objective in recipe.objectives_by_path.items():
        with found.noting(said=RecipeLocation(origins, f"{key}loss", "teacher")):
            _check_teacher(recipe, objective, found)
        said = RecipeLocation(origins, f"{key}data", "dataset")
        with found.noting(said=said):
            rows = load_objective(objective, recipe.seed)
            found.training[key], held_out = rows
            own = own if held_out is None else rows
        if key in found.training:
            _check_rows(objective, found.training[key], found, said)
    for number, evaluator in enumerate(recipe.eval):
        if evaluator.from_ is None or own is not None:  # or what is wrong with the training data has been noted
            with found.noting(said=RecipeLocation(origins, f"eval.{number}", "dataset")):
                measured = evaluator.load(recipe.seed, own)
                found.evaluation.append(measured)
                if (examples := evaluator.examples_of(measured)) is not None:
                    found.warnings += lint_evaluation(examples, _origin_of(evaluator, recipe))
    if not found.errors:
        sets = [
            EvaluationRows(evaluator.label, _origin_of(evaluator, recipe), examples)
            for evaluator, rows in zip(recipe.eval, found.evaluation, strict=True)
            if (examples := evaluator.examples_of(rows)) is not None
        ]
        for examples in found.training.values():
            found.warnings += shared_rows(examples, sets)
    return found


def load_objective(objective: Objective, seed: int) -> TrainAndHoldout:
    """The rows that are trained on, or the first of a stream, and those held out from them."""
    if objective.data.streaming:
        return read_first_examples(objective.data), None
    return load_examples(objective.data, objective.data.format, seed, objective.data.holdout)


def _check_rows(objective: Objective, training: Examples, found: ValidationReport, said: RecipeLocation) -> None:
    """What rows say against their loss, and against themselves."""
    with found.noting(objective.data.dataset, said), at_key("columns.label"):
        check_labels(objective.loss.type, objective.loss.fits, training, objective.teacher is not None)
        if objective.data.streaming and isinstance(objective.loss, Softmax) and not training.label_names:
            raise DataError(
                "loss `softmax` has weights for each class, and a stream does not know all classes beforehand: number "
                "them 0, 1, ... by their names in `label_map`"
            )
    with found.noting(said=said):
        found.warnings += _audit_training(objective, training)


def _check_recipe(recipe: Recipe, origins: Mapping[str, Mark], found: ValidationReport) -> None:
    """What the recipe says, against itself and what the base says of itself."""
    impossible = lint_recipe(ERRORS, recipe, found.base, origins)
    found.warnings += [replace(problem, snippet=None) for problem in lint_recipe(WARNINGS, recipe, found.base, origins)]
    if impossible:
        raise RecipeError(impossible)


def _check_teacher(recipe: Recipe, objective: Objective, found: ValidationReport) -> None:
    """Whether the teacher of a loss is there, and has embeddings of the size that the loss needs."""
    if objective.teacher is None or not isinstance(objective.loss, TeacherLoss):
        return
    teacher = _inspect_if_reachable(objective.teacher, found)
    own, of_teacher = embedding_dim(recipe, found.base), teacher.output_dim
    if own is not None and of_teacher is not None:
        objective.loss.require_teacher_dim(own, of_teacher)


def _inspect_if_reachable(model: Model, found: ValidationReport) -> ModelInfo:
    """What a model says of itself; a warning, and nothing, where the Hub is out of reach."""
    try:
        return inspect_model(model)
    except HubError as error:
        if any(problem.code != OUT_OF_REACH for problem in error.problems):
            raise
        found.warnings += [Problem(problem.message, "base-unseen") for problem in error.problems]
        return ModelInfo()


def _audit_training(objective: Objective, training: Examples) -> list[Problem]:
    """Warnings about the training rows, and about what of the dataset became none."""
    in_batch = objective.loss.sampler == "no_duplicates"
    problems = lint_training(training, objective.data.dataset, in_batch, str(objective.sampler))
    return _leftovers(objective.data, training) + problems


def _leftovers(source: TrainingData, training: Examples) -> list[Problem]:
    """Warnings about rows and columns that are not used. Reads the data again, where there may be some."""
    if not training.dropped and LABELED[source.format]:
        return []
    table = read_rows_until(source, training.row[-1]) if source.streaming else load_table(source)
    return dropped_rows(table, source, training) + unread_flags(table, source)


def _origin_of(evaluator: Evaluator, recipe: Recipe) -> str:
    """The dataset that an evaluator's rows are of."""
    held_out_of = recipe.holdout_source
    return evaluator.origin or (held_out_of.dataset if held_out_of else "")


def prepare_evaluation(recipe: Recipe) -> Evaluators:
    """Evaluators with their rows, for a model that is there already."""
    own: TrainAndHoldout | None = None
    source = recipe.holdout_source
    if source is not None and any(evaluator.from_ == "holdout" for evaluator in recipe.eval):
        own = load_examples(source, source.format, recipe.seed, source.holdout)
    return [(evaluator, evaluator.load(recipe.seed, own)) for evaluator in recipe.eval]
