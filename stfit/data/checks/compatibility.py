"""Whether a loss supports its data: first by the recipe alone, then by the labels.

This room does not import losses: they are passed as their name and the (format, label kind) tuples they support.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.data.table import name_rows
from stfit.errors import DataError, Problem
from stfit.io.yaml_text import to_hint

Fits = Iterable[tuple[str, str]]
"""(format, label kind) for each kind of data that a loss supports."""

LabelSource = Literal["label", "scores", "embedding", "teacher"]

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
    "embedding": "embeddings",
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


class LabelNeeds(NamedTuple):
    """What a loss learns from."""

    loss: str
    kinds: tuple[str, ...]
    """Kinds of labels that it takes in the format of its columns; empty if it does not support the format."""
    has_teacher: bool = False

    def source(self, examples: Examples) -> LabelSource | None:
        """Where its label comes from; None if it needs none, or if there is none."""
        if self.has_teacher:
            return "teacher"
        if examples.scores is not None and "scores" in self.kinds:
            return "scores"
        if examples.embedding is not None and "embedding" in self.kinds:
            return "embedding"
        return "label" if examples.label is not None and {*self.kinds} & PROBLEM_OF.keys() else None


def check_labels(needs: Sequence[LabelNeeds], examples: Examples) -> None:
    """Raises DataError if a loss does not support the kind or range of the labels, or if they are all equal."""
    check_kind(needs, examples)
    label = examples.label
    for need in needs:
        if label is not None and need.source(examples) == "label" and label.min() == label.max():
            raise DataError(
                f"loss `{need.loss}` learns from differences between labels, but all {len(label)} labels are "
                f"{label[0]:g}: check `where` and `split`"
            )


def check_kind(needs: Sequence[LabelNeeds], examples: Examples) -> None:
    """The same for part of the rows, whose labels may be all equal."""
    sources = [need.source(examples) for need in needs]
    supported = [(need, source) for need, source in zip(needs, sources, strict=True) if need.kinds]
    for need, source in supported:
        if source is None and "none" not in need.kinds and (examples.label is None or len(needs) > 1):
            raise DataError(_missing_label(need))
    taught = {"scores": examples.scores, "embedding": examples.embedding, "label": examples.label}
    for kind, given in taught.items():
        if given is not None and supported and kind not in sources:
            names = ", ".join(f"`{need.loss}`" for need in needs)
            beside = " beside a teacher" if "teacher" in sources else ""
            what = {"label": "labels", "embedding": "embeddings"}.get(kind, kind)
            ignores = f"loss {names} ignores" if len(needs) == 1 else f"losses {names} ignore"
            raise DataError(f"{ignores} {what}{beside}: remove `columns.{kind}`")
    for need, source in supported:
        if source == "label":
            _check_kind_of_label(need.loss, need.kinds, examples)


def _missing_label(need: LabelNeeds) -> str:
    ways = {
        "number": ("a numeric label", "`columns: {label: ...}` to a numeric column"),
        "scores": ("scores", "`columns: {scores: ...}` to a list of numbers"),
        "embedding": ("embeddings", "`columns: {embedding: ...}` to a list of numbers"),
        "teacher": ("a teacher", "`loss.teacher` to a model"),
    }
    *others, (wanted, setting) = [way for kind, way in ways.items() if kind in need.kinds]
    names, settings = (", ".join(words) for words in zip(*others, strict=True)) if others else ("", "")
    return f"loss `{need.loss}` needs {names}{names and ' or '}{wanted}: set {settings}{settings and ', or '}{setting}"


def _check_kind_of_label(loss: str, kinds: tuple[str, ...], examples: Examples) -> None:
    label = examples.label
    assert label is not None
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
