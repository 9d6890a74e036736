"""Load the data of a recipe and check everything that can be checked before weights are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from stfit.data.batching.shuffle_buffer import read_first_examples
from stfit.data.checks.compatibility import check_labels
from stfit.data.checks.lint import lint_evaluation, lint_training
from stfit.data.checks.unused_rows import dropped_rows, missing_classes, unseen_classes, unused_flags
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.load_examples import load_examples, load_with_table
from stfit.data.source import ROWS_SEED, Source
from stfit.data.table import Table
from stfit.encoder.config import Model
from stfit.encoder.folder.inspect import inspect_model, require_cross_encoder
from stfit.encoder.folder.model_config import ModelInfo
from stfit.errors import (
    MAX_SHOWN,
    DataError,
    HubError,
    ModelError,
    Problem,
    RecipeError,
    StfitError,
    at_key,
)
from stfit.evaluation.base import TrainAndHoldout
from stfit.evaluation.bootstrap import TAIL, min_rows
from stfit.evaluation.evaluators.mse import MSEToTeacher
from stfit.evaluation.measure import Evaluators
from stfit.evaluation.registry import Evaluator
from stfit.evaluation.slices import require_slice, require_slices
from stfit.hub.explain import OUT_OF_REACH
from stfit.losses.base import CrossEncoderTeacher, LossBase, TeacherLoss
from stfit.progress import task
from stfit.recipe.marked_yaml import Mark
from stfit.recipe.recipe import Objective, Recipe, teacher_of
from stfit.workflows.check.findings import embedding_dim, lint_recipe
from stfit.workflows.check.leakage import dataset_of, drop_overlap, find_leakage, load_evaluators, with_kept_rows
from stfit.workflows.check.lint import ERRORS, WARNINGS


@dataclass
class Prepared:
    """What could be loaded, in the order of the recipe, and every error and warning."""

    base: ModelInfo = field(default_factory=ModelInfo)
    examples_of: dict[str, Examples] = field(default_factory=dict)
    """By the prefix of the objective's keys (see Recipe.objectives_by_path)."""
    evaluation: list[Any] = field(default_factory=list)
    errors: list[StfitError] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @property
    def training(self) -> list[Examples]:
        return list(self.examples_of.values())

    def all_texts(self) -> Iterator[str]:
        return (text for examples in self.training for text in examples.all_texts())

    def evaluators(self, recipe: Recipe) -> Evaluators:
        return list(zip(recipe.eval, self.evaluation, strict=True))

    @contextmanager
    def collect_errors(self, file: str | None = None, location: RecipeLocation | None = None) -> Iterator[None]:
        """Collect a user's error instead of raising it. `file`: its dataset; `location`: where the recipe names it."""
        try:
            with (location or RecipeLocation({}, "", "")).shown(file):
                yield
        except (RecipeError, DataError, ModelError, HubError) as error:
            self.errors.append(error)


@dataclass(frozen=True)
class RecipeLocation:
    """A section of a recipe, and the key in it that names the dataset or model."""

    origins: Mapping[str, Mark]
    section: str
    main: str

    @contextmanager
    def shown(self, file: str | None = None) -> Iterator[None]:
        """A user's error that the block raises, of the dataset `file`, shows this place."""
        try:
            yield
        except (RecipeError, DataError, ModelError, HubError) as error:
            problems = (replace(problem, file=problem.file or file) for problem in error.problems)
            raise type(error)([self.place(problem) for problem in problems]) from error

    def place(self, problem: Problem) -> Problem:
        """The problem with its place in the recipe. A problem of a row keeps the place in its file and shows both."""
        inner = [problem.key, problem.key.partition(".")[0]] if problem.key else []
        keys = [*(f"{self.section}.{key}" for key in (*inner, self.main)), self.section]
        mark = next((self.origins[key] for key in keys if key in self.origins), None)
        if mark is None or problem.snippet:
            return problem
        if problem.row is not None:
            return replace(problem, snippet=mark.problem("", "").snippet)
        return mark.problem(f"{problem.file}: {problem.message}" if problem.file else problem.message, problem.code)


def load_and_validate(recipe: Recipe, origins: Mapping[str, Mark] | None = None) -> Prepared:
    """Load and check everything but the weights. Errors of all kinds are raised together."""
    report = validate(recipe, origins or {})
    if report.errors:
        raise first_of(report.errors)
    report.warnings += find_leakage(recipe, report.examples_of, report.evaluators(recipe))
    return report


def fail_fast(recipe: Recipe, origins: Mapping[str, Mark]) -> None:
    """Raise as `load_and_validate` does if the recipe alone is wrong, before torch is imported (seconds)."""
    if lint_recipe(ERRORS, recipe, ModelInfo(), origins):
        load_and_validate(recipe, origins)


def first_of(errors: Sequence[StfitError]) -> StfitError:
    """The error with the lowest exit code, with the problems of all errors."""
    first = min(errors, key=lambda error: error.exit_code)
    return type(first)([problem for error in errors for problem in error.problems])


def validate(recipe: Recipe, origins: Mapping[str, Mark]) -> Prepared:
    report = Prepared()
    with report.collect_errors(location=RecipeLocation(origins, "model", "base")):
        report.base = _inspect_if_reachable(recipe.model, report)
    with report.collect_errors():
        warnings = lint_recipe(WARNINGS, recipe, report.base, origins)
        report.warnings += [replace(problem, snippet=None) for problem in warnings]
        if errors := lint_recipe(ERRORS, recipe, report.base, origins):
            raise RecipeError(errors)
    holdout: TrainAndHoldout | None = None
    for key, objective in recipe.objectives_by_path.items():
        holdout = _load_objective(key, objective, recipe, origins, report) or holdout
    for number, evaluator in enumerate(recipe.eval):
        if evaluator.from_ is None or holdout is not None:  # else the error of the training data is enough
            with report.collect_errors(location=RecipeLocation(origins, f"eval.{number}", "dataset")):
                rows = evaluator.load(ROWS_SEED, holdout)
                report.evaluation.append(rows)
                report.warnings += evaluator.problems_of(rows) + slice_problems(evaluator, rows)
                if (examples := evaluator.examples_of(rows)) is not None:
                    report.warnings += lint_evaluation(examples, dataset_of(evaluator, recipe), evaluator.allowed)
                    report.warnings += _class_problems(evaluator, examples, report)
                _check_slice_names(recipe, evaluator, rows, origins, report)
            if isinstance(evaluator, MSEToTeacher):
                with report.collect_errors(location=RecipeLocation(origins, f"eval.{number}", "teacher")):
                    _check_evaluating_teacher(recipe, evaluator, report)
    if not report.errors:
        _drop_overlap(recipe, holdout, origins, report)
    for key, objective in recipe.objectives_by_path.items():
        if key in report.examples_of:
            _check_embeddings(key, objective, recipe, origins, report)
            _check_rows(objective, RecipeLocation(origins, f"{key}data", "dataset"), report.examples_of[key], report)
    return report


def _load_objective(
    key: str, objective: Objective, recipe: Recipe, origins: Mapping[str, Mark], report: Prepared
) -> TrainAndHoldout | None:
    """Check the teachers and load the rows of an objective; returns them if some are held out."""
    for loss_key, loss in objective.losses_by_key.items():
        with report.collect_errors(location=RecipeLocation(origins, f"{key}{loss_key}", "teacher")):
            _check_teacher(recipe, loss, report)
    held_out: Examples | None = None
    with report.collect_errors(location=RecipeLocation(origins, f"{key}data", "dataset")):
        keep = recipe.columns_of_holdout if objective.data.holdout else []
        training, held_out, table = load_objective(objective, recipe.seed, keep)
        report.examples_of[key] = training
        report.warnings += dropped_rows(table, objective.data, training) + unused_flags(table, objective.data)
        report.warnings += missing_classes(objective.data, training)
    return None if held_out is None else (report.examples_of[key], held_out)


def _check_slice_names(
    recipe: Recipe, evaluator: Evaluator, rows: Any, origins: Mapping[str, Mark], report: Prepared
) -> None:
    """Whether there are the slices whose metrics decide something."""
    deciding = {("train", "best"): recipe.train.best or ""}
    deciding |= {(f"gate.{i}", "metric"): gate.metric for i, gate in enumerate(recipe.gate)}
    names = evaluator.slices_of(rows)
    for (section, key), metric in deciding.items():
        with report.collect_errors(location=RecipeLocation(origins, section, key)):
            require_slice(metric, evaluator.label, names)


def slice_problems(evaluator: Evaluator, rows: Any) -> list[Problem]:
    """Warnings about small slices. Raises DataError for a column that makes none."""
    names = evaluator.slices_of(rows)
    if names is None:
        return []
    require_slices(str(evaluator.by), names)
    sizes = Counter(names)
    small = [name for name, size in sizes.items() if size < min_rows(TAIL)]
    shown = ", ".join(f"{name} ({sizes[name]})" for name in small[:MAX_SHOWN])
    message = (
        f"evaluator `{evaluator.label}`: {len(small)} of {len(sizes)} slices have fewer than {min_rows(TAIL)} rows, so "
        f"that they have no interval, and chance decides the worst: {shown}{', ...' if len(small) > MAX_SHOWN else ''}"
    )
    return [Problem(message, "small-slices")] if small else []


def _class_problems(evaluator: Evaluator, examples: Examples, report: Prepared) -> list[Problem]:
    cut = missing_classes(evaluator, examples) if isinstance(evaluator, Source) and evaluator.from_ is None else []
    unseen = [unseen_classes(trained, examples, evaluator.label) for trained in report.examples_of.values()]
    return cut + min(unseen, key=len, default=[])


def _drop_overlap(
    recipe: Recipe, holdout: TrainAndHoldout | None, origins: Mapping[str, Mark], report: Prepared
) -> None:
    evaluators = report.evaluators(recipe)
    for key, objective in recipe.objectives_by_path.items():
        training = report.examples_of[key]
        with report.collect_errors(location=RecipeLocation(origins, f"{key}data", "dataset")):
            report.examples_of[key] = drop_overlap(recipe, objective.data, training, evaluators)
        if holdout and holdout[0] is training:
            kept = report.examples_of[key], holdout[1]
            report.evaluation = [rows for _, rows in with_kept_rows(evaluators, kept)]


def _check_embeddings(
    key: str, objective: Objective, recipe: Recipe, origins: Mapping[str, Mark], report: Prepared
) -> None:
    """Whether those in the data have the size of the model's."""
    examples = report.examples_of[key]
    dim = embedding_dim(recipe, report.base)
    for (loss_key, loss), need in zip(objective.losses_by_key.items(), objective.needs, strict=True):
        if isinstance(loss, TeacherLoss) and examples.embedding is not None and need.source(examples) == "embedding":
            with report.collect_errors(location=RecipeLocation(origins, f"{key}{loss_key}", "type")):
                loss.require_teacher_dim(dim or examples.embedding.shape[1], examples.embedding.shape[1])


def _check_rows(objective: Objective, location: RecipeLocation, training: Examples, report: Prepared) -> None:
    with report.collect_errors(objective.data.dataset, location), at_key("columns.label"):
        check_labels(objective.needs, training)
        has_classes = training.label_kind in ("binary", "class") and not training.label_names
        built = [loss.tag() for loss in objective.losses if loss.is_built]
        if objective.data.streaming and built and has_classes:
            raise DataError(
                f"loss `{built[0]}` has weights for each class, and the classes of a stream are not known "
                "in advance: list them in `data.label_map`, numbered from 0"
            )
    with report.collect_errors(location=location), task(f"checking {len(training):,} examples"):
        in_batch = objective.best_sampler == "no_duplicates"
        report.warnings += lint_training(training, objective.data.dataset, in_batch, str(objective.sampler))


def load_objective(
    objective: Objective, seed: int, keep: Sequence[str] = ()
) -> tuple[Examples, Examples | None, Table]:
    """The training examples (of a stream, the first ones), those held out from them, and the rows of both."""
    source = objective.data
    if source.streaming:
        training, table = read_first_examples(source)
        return training, None, table
    return load_with_table(source, source.format, seed, source.holdout, keep)


def _check_teacher(recipe: Recipe, loss: LossBase, report: Prepared) -> None:
    teacher = teacher_of(loss)
    if isinstance(teacher, CrossEncoderTeacher):
        with _unless_out_of_reach(report), at_key("cross_encoder"):
            require_cross_encoder(teacher.cross_encoder, teacher.revision)
    if not isinstance(teacher, Model) or not isinstance(loss, TeacherLoss):
        return
    teacher_dim = _inspect_if_reachable(teacher, report).output_dim
    student_dim = embedding_dim(recipe, report.base)
    if student_dim is not None and teacher_dim is not None:
        loss.require_teacher_dim(student_dim, teacher_dim)


def _check_evaluating_teacher(recipe: Recipe, evaluator: MSEToTeacher, report: Prepared) -> None:
    teacher = Model(base=evaluator.teacher, revision=evaluator.teacher_revision)
    teacher_dim, student_dim = _inspect_if_reachable(teacher, report).output_dim, embedding_dim(recipe, report.base)
    if student_dim is not None and teacher_dim is not None:
        evaluator.require_teacher_dim(student_dim, teacher_dim)


def _inspect_if_reachable(model: Model, report: Prepared) -> ModelInfo:
    """What the model's files tell; if the Hub is out of reach, a warning and an empty ModelInfo."""
    info = ModelInfo()
    with _unless_out_of_reach(report):
        info = inspect_model(model)
    return info


@contextmanager
def _unless_out_of_reach(report: Prepared) -> Iterator[None]:
    """If the Hub is out of reach, a warning."""
    try:
        yield
    except HubError as error:
        if any(problem.code != OUT_OF_REACH for problem in error.problems):
            raise
        report.warnings += [Problem(problem.message, "base-unseen") for problem in error.problems]


def load_training_rows(recipe: Recipe, objective: Objective) -> tuple[Examples, Table]:
    """The rows that an objective trains on (of a stream, the first ones), and the table that they come from."""
    training, _, table = load_objective(objective, recipe.seed)
    if objective.data.drop_overlap:
        training = drop_overlap(recipe, objective.data, training, prepare_evaluation(recipe))
    return training, table


def prepare_evaluation(recipe: Recipe) -> Evaluators:
    holdout: TrainAndHoldout | None = None
    source = recipe.holdout_source
    if source is not None and any(evaluator.from_ == "holdout" for evaluator in recipe.eval):
        holdout = load_examples(source, source.format, recipe.seed, source.holdout, recipe.columns_of_holdout)
    evaluators = load_evaluators(recipe, holdout)
    if holdout is None or source is None:
        return evaluators
    return with_kept_rows(evaluators, (drop_overlap(recipe, source, holdout[0], evaluators), holdout[1]))
