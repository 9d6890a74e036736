"""Whether a loss supports its data: first by the recipe alone, then by the labels.

This room does not import losses: they are passed as their name and the (format, label kind) tuples they support.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.data.table import name_rows
from stfit.errors import DataError, Problem
from stfit.io.yaml_text import to_hint

Fits = Iterable[tuple[str, str]]
"""(format, label kind) for each kind of data that a loss supports."""

MAX_GAPS = 10_000
"""Numbers per class that occurs; labels with more are ids."""

MEANING = {
    "none": "no label",
    "binary": "labels that are 0 or 1",
    "class": "integer classes 0, 1, 2, ...",
    "score": "scores from 0 to 1",
    "number": "a number",
    "teacher": "a teacher",
    "scores": "a teacher's scores",
}


def format_problem(loss: str, format: str, fits_of: Mapping[str, Fits]) -> str | None:
    """Why the loss does not support the format; None if it does. `fits_of`: name of each loss -> what it supports."""
    formats = list(dict.fromkeys(fit[0] for fit in fits_of[loss]))
    if format in formats:
        return None
    alternatives = [name for name, fits in fits_of.items() if format in (fit[0] for fit in fits)]
    return (
        f"`{loss}` does not support format `{format}`, only {' or '.join(formats)}. "
        f"Losses for {format}: {', '.join(alternatives) or 'none'}"
    )


def check_labels(loss: str, fits: Fits, examples: Examples, has_teacher: bool = False) -> None:
    """Raises DataError if the loss does not support the kind or range of the labels, or if they are all equal."""
    check_kind(loss, fits, examples, has_teacher)
    label = examples.label
    if label is not None and examples.format in dict(fits) and label.min() == label.max():
        raise DataError(
            f"loss `{loss}` learns from differences between labels, but all {len(label)} labels are {label[0]:g}: "
            "check `where` and `split`"
        )


def check_kind(loss: str, fits: Fits, examples: Examples, has_teacher: bool = False) -> None:
    """The same for part of the rows, whose labels may be all equal."""
    kinds = [kind for format, kind in fits if format == examples.format]
    label = examples.label
    if examples.scores is not None and (has_teacher or "scores" not in kinds):
        beside = " beside a teacher" if has_teacher else ""
        raise DataError(f"loss `{loss}` ignores scores{beside}: remove `columns.scores`")
    if label is None and examples.scores is None and "scores" in kinds and not has_teacher:
        numbers = "`columns: {label: ...}` to a numeric column, " if "number" in kinds else ""
        raise DataError(
            f"loss `{loss}` needs {'a numeric label, ' if numbers else ''}scores or a teacher: set {numbers}"
            "`columns: {scores: ...}` to a list of numbers, or `loss.teacher` to a model"
        )
    if label is not None and (has_teacher or not {*kinds} - {"none", "teacher", "scores"}):
        raise DataError(f"loss `{loss}` ignores labels: remove `columns.label`")
    if label is None or not kinds:
        return
    problems = [PROBLEM_OF[kind](examples, label) for kind in kinds if kind in PROBLEM_OF]
    if problems and problems[0] and None not in problems:
        message, rows = problems[0]
        meanings = " or ".join(MEANING[kind] for kind in kinds)
        at = f" ({name_rows(rows.tolist())})" if len(rows) else ""
        row = int(rows[0]) if len(rows) else None
        raise DataError(Problem(f"loss `{loss}` needs {meanings}, but {message}{at}", "label-kind", row=row))


def _score_problem(examples: Examples, label: np.ndarray) -> tuple[str, np.ndarray] | None:
    """Scores are floats, or integers that are all 0 or 1, within [0, 1]."""
    if examples.label_kind == "class" and examples.label_names:
        listed = ", ".join(examples.label_names[:5])
        advice = "set scores in `label_map`, or use `loss: softmax`, which learns the classes of pairs"
        return f"these are classes ({listed}); {advice}", examples.row[:0]
    outside = (label < 0) | (label > 1)
    if not outside.any():
        return None
    low, high = label.min(), label.max()
    whole = f"[{np.floor(low):g}, {np.ceil(high):g}]"
    return f"these range from {low:g} to {high:g}; rescale them with `label_range: {whole}`", examples.row[outside]


def _binary_problem(examples: Examples, label: np.ndarray) -> tuple[str, np.ndarray] | None:
    """Only 0 and 1, but not for named classes: stfit can't know which name means similar."""
    if examples.label_kind == "binary":
        return None
    if names := examples.label_names:
        mapped = to_hint({names[0]: 0, names[-1]: 1})
        return f"these are classes; set which of them mean similar: `label_map: {mapped}`", examples.row[:0]
    message = (
        f"these range from {label.min():g} to {label.max():g}; use `label_map`, or a loss for scores such as cosent"
    )
    return message, examples.row[~np.isin(label, (0, 1))]


def _class_problem(examples: Examples, label: np.ndarray) -> tuple[str, np.ndarray] | None:
    if examples.label_kind == "score":
        return "these are floats; use `label_map`, or a loss for scores such as cosent", examples.row[:0]
    if label.min() < 0:
        return "some are negative; drop them with `where: {label: {min: 0}}`", examples.row[label < 0]
    classes = len(np.unique(label))
    if examples.format == "labeled_pair" and label.max() >= MAX_GAPS * classes:  # softmax has an output per number
        return f"{classes} classes have numbers up to {label.max()}; number them with `label_map`", examples.row[:0]
    return None


def _number_problem(examples: Examples, label: np.ndarray) -> tuple[str, np.ndarray] | None:
    names = examples.label_names
    return (f"these are classes ({', '.join(names[:5])})", examples.row[:0]) if names else None


PROBLEM_OF = {"number": _number_problem, "score": _score_problem, "binary": _binary_problem, "class": _class_problem}
