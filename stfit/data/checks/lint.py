"""Lint of training and evaluation rows: mistakes that raise no error in training, and teach the wrong thing.

A check is a function from rows to problems; its docstring says what happens if they are ignored. ERRORS stop a run.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.data.table import name_rows
from stfit.errors import DataError, Problem

T = TypeVar("T")

SAMPLE = 2000
"""Number of rows that statistics are computed from."""


@dataclass(frozen=True)
class ExamplesToLint:
    """Examples as the checks look at them."""

    examples: Examples
    folded: dict[str, list[str | None]]
    """Texts by role, with case and white space folded."""
    in_batch: bool
    """Whether the loss takes the positives of other rows as negatives."""
    sampler: str

    def problem(self, code: str, message: str, at: Iterable[int]) -> list[Problem]:
        """One problem for the examples at these positions; empty if there are none."""
        numbers = [int(self.examples.row[position]) for position in at]
        if not numbers:
            return []
        share = f"{len(numbers)} of {len(self.examples)} examples"
        return [Problem(f"{message}: {share}, {name_rows(numbers)}", code, row=numbers[0])]

    def tuples(self) -> list[tuple[str | None, ...]]:
        """The folded texts of each example."""
        return list(zip(*self.folded.values(), strict=True))


Check = Callable[[ExamplesToLint], list[Problem]]


def fold(text: str) -> str:
    """Equal for texts that differ in case and white space only."""
    return " ".join(text.casefold().split())


def lint_training(examples: Examples, origin: str, in_batch: bool, sampler: str) -> list[Problem]:
    """Warnings about the rows of `origin`. Raises DataError for certain mistakes.

    `in_batch`: whether the loss takes other rows' positives as negatives; `sampler`: how rows form batches.
    """
    rows = fold_rows(examples, in_batch, sampler)
    if refused := _run(ERRORS, rows, origin):
        raise DataError(refused)
    return _run(WARNINGS, rows, origin)


def lint_evaluation(examples: Examples, origin: str) -> list[Problem]:
    """Warnings about the rows of an evaluator. Raises DataError if they can't measure anything."""
    rows = fold_rows(examples, in_batch=False, sampler="shuffle")
    if refused := _run([*ERRORS, _one_label], rows, origin):
        raise DataError(refused)
    return _run([_ids_for_texts, _names_for_scores, _swapped_negatives, _upside_down_labels], rows, origin)


def fold_rows(examples: Examples, in_batch: bool, sampler: str) -> ExamplesToLint:
    """Examples for the checks."""
    folded = {role: [text and fold(text) for text in texts] for role, texts in examples.texts.items()}
    return ExamplesToLint(examples, folded, in_batch, sampler)


def _run(checks: list[Check], rows: ExamplesToLint, origin: str) -> list[Problem]:
    """What the checks find, with the file it is in: all of it may come from a column that was taken for another."""
    return [replace(problem, file=origin, key="columns") for check in checks for problem in check(rows)]


def _one_text_in_two_roles(rows: ExamplesToLint) -> list[Problem]:
    """Two roles that always hold the same text were given one column: nothing can be learnt from a text and itself."""
    roles = list(rows.folded)
    pairs = [(one, other) for i, one in enumerate(roles) for other in roles[i + 1 :]]
    return [
        Problem(f"{one} and {other} are the same text in every row: check `columns`", "same-column")
        for one, other in pairs
        if rows.folded[one] == rows.folded[other]
    ]


def _one_text_in_all_rows(rows: ExamplesToLint) -> list[Problem]:
    """A role that never changes is a column of another kind (`source`, `language`), from which nothing is learnt."""
    return [
        Problem(f"{role} is {texts[0]!r:.60} in every row: check `columns`", "constant-text")
        for role, texts in rows.folded.items()
        if len(texts) >= 10 and len(set(texts)) == 1
    ]


def _numbers_for_texts(rows: ExamplesToLint) -> list[Problem]:
    """A label or an id taken for a text is embedded like one."""
    return _wordless(rows, re.compile(r"[\W\d_]*"), "no-words", "contains no words")


def _ids_for_texts(rows: ExamplesToLint) -> list[Problem]:
    """The same for ids with letters in them; a warning, since part numbers may be what is searched for."""
    return _wordless(rows, re.compile(r"[!-~]*\d[!-~]*"), "id-column", "looks like an id column")


def _wordless(rows: ExamplesToLint, pattern: re.Pattern[str], code: str, message: str) -> list[Problem]:
    found = []
    for role, texts in rows.folded.items():
        sample = [text for text in _subsample(texts) if text is not None]
        if sum(pattern.fullmatch(text) is not None for text in sample) > 0.9 * len(sample):
            found.append(Problem(f"{role} {message}, such as {sample[0]!r:.60}: check `columns`", code))
    return found


def _few_texts(rows: ExamplesToLint) -> list[Problem]:
    """A role of a few values is rather a class than a text: most rows of a batch would be false negatives."""
    return [
        Problem(
            f"{role} has only {len(set(texts))} different texts in {len(texts)} rows, such as {texts[0]!r:.60}: "
            "is it a class label? Check `columns`",
            "few-texts",
        )
        for role, texts in rows.folded.items()
        if len(texts) >= 100 and len(set(texts)) <= len(texts) // 50
    ]


def _damaged_texts(rows: ExamplesToLint) -> list[Problem]:
    """Text that was decoded wrongly is learnt as it stands, and never occurs where the model is used."""
    damaged = re.compile("\ufffd|\u00c3[\u0080-\u00bf]|\u00e2\u20ac")
    at = [
        position
        for position, texts in enumerate(zip(*rows.examples.texts.values(), strict=True))
        if any(text is not None and damaged.search(text) for text in texts)
    ]
    return rows.problem("damaged-text", "text decoded with the wrong encoding (set `read: {encoding: ...}`)", at)


def _repeated_rows(rows: ExamplesToLint) -> list[Problem]:
    """A row that stands there twice counts twice, and a holdout may hold what training has seen."""
    labels = rows.examples.label
    keys = [(texts, None if labels is None else labels[i]) for i, texts in enumerate(rows.tuples())]
    return rows.problem("duplicate-rows", "duplicates of earlier rows", _repeats(keys))


def _contradictory_labels(rows: ExamplesToLint) -> list[Problem]:
    """The same texts with different labels pull in both directions, and cost most in every epoch."""
    labels = rows.examples.label
    if labels is None:
        return []
    ordered = rows.examples.label_kind == "class"  # of a premise and a hypothesis, say
    keys = [texts if ordered else tuple(sorted(map(str, texts))) for texts in rows.tuples()]
    labels_of = defaultdict(set)
    for key, label in zip(keys, labels.tolist(), strict=True):
        labels_of[key].add(label)
    at = [position for position, key in enumerate(keys) if len(labels_of[key]) > 1]
    return rows.problem("contradictory-labels", "the same texts with different labels", at)


def _equal_texts(rows: ExamplesToLint) -> list[Problem]:
    """A text is nearest to itself already; where the label says that it is not, nothing can be learnt."""
    if len(rows.folded) == 1:
        return []
    same = [position for position, texts in enumerate(rows.tuples()) if texts[0] == texts[1]]
    labels = rows.examples.label
    if labels is None or rows.examples.format == "triplet":
        return rows.problem("equal-texts", "the positive equals its anchor", same)
    if rows.examples.label_kind == "class":
        return []
    unlike = [position for position in same if labels[position] < 0.5]
    return rows.problem("equal-texts", "identical sentences labeled as dissimilar", unlike)


def _negatives_that_are_right(rows: ExamplesToLint) -> list[Problem]:
    """A negative that equals the anchor or the positive pushes away what should be near."""
    if rows.examples.format != "triplet":
        return []
    at = [
        position
        for position, (anchor, positive, *negatives) in enumerate(rows.tuples())
        if anchor in negatives or positive in negatives
    ]
    return rows.problem("negative-is-right", "a negative equals the anchor or the positive", at)


def _swapped_negatives(rows: ExamplesToLint) -> list[Problem]:
    """With positive and negative swapped, training works, and makes the model worse in every step."""
    if rows.examples.format != "triplet":
        return []
    sample = _subsample(rows.tuples())
    with_positive = np.array([_shared_words(texts[0], texts[1]) for texts in sample])
    with_negative = np.array([_shared_words(texts[0], texts[2]) for texts in sample])
    if not _is_clearly_less(with_positive - with_negative):
        return []
    message = (
        f"anchors share fewer words with their positives ({with_positive.mean():.0%}) than with their negatives "
        f"({with_negative.mean():.0%}): are the columns swapped?"
    )
    return [Problem(message, "swapped-negative")]


def _upside_down_labels(rows: ExamplesToLint) -> list[Problem]:
    """With labels that are small for similar pairs, training works, and makes the model worse in every step."""
    labels = rows.examples.label
    if labels is None or rows.examples.format != "labeled_pair" or rows.examples.label_kind == "class":
        return []
    at = _subsample(list(range(len(labels))))
    pairs = rows.tuples()
    shared = np.array([_shared_words(pairs[position][0], pairs[position][1]) for position in at])
    # Positive on average where pairs of a higher label share more words.
    agreement = (shared - shared.mean()) * (labels[at] - labels[at].mean())
    if not _is_clearly_less(agreement):
        return []
    return [
        Problem(
            "pairs with low labels share more words than pairs with high labels: does a high label mean similar? "
            "`label_map` can invert the labels",
            "upside-down-labels",
        )
    ]


def _swapped_roles(rows: ExamplesToLint) -> list[Problem]:
    """With query and document swapped, prompts stand before the wrong texts, and search is trained backwards."""
    if rows.examples.format not in ("positive_pair", "triplet"):
        return []
    anchors, positives = (
        [len(text) for text in rows.folded[role] if text is not None] for role in ("anchor", "positive")
    )
    anchor, positive = np.median(anchors), np.median(positives)
    if anchor < 3 * positive:
        return []
    return [
        Problem(
            f"anchors are much longer (median {anchor:.0f} characters) than positives ({positive:.0f}): "
            "if these are queries and documents, `columns` has them swapped",
            "swapped-roles",
        )
    ]


def _false_negatives(rows: ExamplesToLint) -> list[Problem]:
    """A text that is right for two anchors of one batch is pushed away from one of them."""
    if not rows.in_batch:
        return []
    roles = [role for role in ("anchor", "positive", "text") if role in rows.folded]
    # The sampler keeps equal texts apart, but not those that differ in case or white space.
    seen = rows.folded if rows.sampler == "shuffle" else _variants(rows)
    at = sorted({position for role in roles for position in _duplicated(seen[role])})
    which = "texts" if roles == ["text"] else "anchors or positives"
    hint = "use `sampler: no_duplicates`" if rows.sampler == "shuffle" else "they differ only in case or whitespace"
    return rows.problem("false-negatives", f"{which} that occur in several rows ({hint})", at)


def _variants(rows: ExamplesToLint) -> dict[str, list[str | None]]:
    """Folded texts by role; None for those that are written in one way only."""
    result: dict[str, list[str | None]] = {}
    for role, folded in rows.folded.items():
        written = defaultdict(set)
        for key, text in zip(folded, rows.examples.texts[role], strict=True):
            written[key].add(text)
        result[role] = [key if len(written[key]) > 1 else None for key in folded]
    return result


def _duplicated(texts: list[str | None]) -> list[int]:
    counts = Counter(texts)
    return [position for position, text in enumerate(texts) if text is not None and counts[text] > 1]


def _lonely_classes(rows: ExamplesToLint) -> list[Problem]:
    """A class with one row has no positive: the sampler leaves the row out."""
    labels = rows.examples.label
    if labels is None or rows.sampler != "group_by_label":
        return []
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return rows.problem(
        "lonely-class", "classes with one row, which is never used", np.flatnonzero(counts[inverse] == 1)
    )


def _classes_not_from_zero(rows: ExamplesToLint) -> list[Problem]:
    """A classifier gets an output for every number up to the largest label, also for those that no row has."""
    labels = rows.examples.label
    if labels is None or rows.examples.label_kind != "class" or rows.examples.label_names:
        return []
    if rows.examples.format == "triplet":  # its label is a number of any size
        return []
    missing = sorted(set(range(int(labels.max()) + 1)) - set(labels.tolist()))
    if not missing:
        return []
    which = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
    message = f"classes go up to {int(labels.max())}, but class {which} has no rows: number them from 0 (`label_map`)"
    return [Problem(message, "class-numbers")]


def _narrow_labels(rows: ExamplesToLint) -> list[Problem]:
    """Scores that fill a small part of 0..1 were rescaled wrongly, or not at all."""
    labels = rows.examples.label
    if labels is None or rows.examples.label_kind != "score" or np.ptp(labels) >= 0.5:
        return []
    if rows.examples.format == "triplet":
        return []
    message = f"scores only range from {labels.min():g} to {labels.max():g}: `label_range` rescales them to 0..1"
    return [Problem(message, "narrow-labels")]


def _one_label(rows: ExamplesToLint) -> list[Problem]:
    """Nothing correlates with a constant."""
    labels = rows.examples.label
    if labels is None or np.ptp(labels) > 0:
        return []
    return [Problem(f"all {len(labels)} labels are {labels[0]:g}, so nothing can be measured", "one-label")]


def _names_for_scores(rows: ExamplesToLint) -> list[Problem]:
    """A similarity can't be held against the numbers that names happened to get."""
    names = rows.examples.label_names
    if rows.examples.format != "labeled_pair" or rows.examples.label_kind != "class" or not names:
        return []
    message = f"labels are classes ({', '.join(names[:5])}): does a higher number mean more similar? See `label_map`"
    return [Problem(message, "class-labels")]


ERRORS: list[Check] = [_one_text_in_two_roles, _one_text_in_all_rows, _numbers_for_texts]
WARNINGS: list[Check] = [
    _ids_for_texts,
    _few_texts,
    _damaged_texts,
    _repeated_rows,
    _contradictory_labels,
    _equal_texts,
    _negatives_that_are_right,
    _swapped_negatives,
    _upside_down_labels,
    _swapped_roles,
    _false_negatives,
    _lonely_classes,
    _classes_not_from_zero,
    _narrow_labels,
]


def _subsample(values: list[T]) -> list[T]:
    return values[:: -(-len(values) // SAMPLE) or 1]


def _repeats(keys: Iterable[Hashable]) -> list[int]:
    seen: set[Hashable] = set()
    return [position for position, key in enumerate(keys) if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def _shared_words(one: str | None, other: str | None) -> float:
    """Share of words that two folded texts have in common (Jaccard index), in 0..1."""
    first, second = set((one or "").split()), set((other or "").split())
    return len(first & second) / max(1, len(first | second))


def _is_clearly_less(values: np.ndarray) -> bool:
    """Whether their mean is below zero by more than five standard errors: chance does not explain it."""
    return len(values) >= 50 and bool(values.mean() < -5 * values.std() / np.sqrt(len(values)))
