"""Lint of training and evaluation rows: mistakes that raise no error in training, but teach the wrong thing.

A check yields problems; its docstring says what happens if they are ignored. ERRORS stop a run.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations, islice
from typing import Any

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.data.mapping.plain_text import single_spaced
from stfit.data.table import name_rows
from stfit.errors import DataError, Problem

SAMPLE = 2000
MAX_FOLDED = 2000
"""Characters of a folded text that are kept."""


@dataclass(frozen=True)
class ExamplesToLint:
    examples: Examples
    folded: dict[str, list[str | None]]
    in_batch: bool
    """Whether the loss uses the positives of other rows as negatives."""
    sampler: str

    def problem(self, code: str, message: str, at: Iterable[int]) -> list[Problem]:
        numbers = [int(self.examples.row[position]) for position in at]
        if not numbers:
            return []
        share = f"{len(numbers)} of {len(self.examples)} examples"
        return [Problem(f"{message}: {share}, {name_rows(numbers)}", code, row=numbers[0])]

    def tuples(self) -> list[tuple[str | None, ...]]:
        return list(zip(*self.folded.values(), strict=True))


Check = Callable[[ExamplesToLint], Iterator[Problem]]


def fold(text: str) -> str:
    """Equal for texts that differ only in case and whitespace. Of a long text, the start and a digest."""
    folded = single_spaced(text, str.casefold)
    if len(folded) <= MAX_FOLDED:
        return folded
    return f"{folded[:MAX_FOLDED]} {sha256(folded.encode(errors='surrogatepass')).hexdigest()}"


def lint_training(examples: Examples, origin: str, in_batch: bool, sampler: str) -> list[Problem]:
    """Warnings about the rows of `origin`; DataError for certain mistakes. `in_batch`: see ExamplesToLint."""
    rows = fold_rows(examples, in_batch, sampler)
    if errors := _run(ERRORS, rows, origin):
        raise DataError(errors)
    return _run(WARNINGS, rows, origin)


def lint_evaluation(examples: Examples, origin: str, allowed: Collection[str] = ()) -> list[Problem]:
    """Warnings about the rows of an evaluator. Raises DataError if they can't measure anything.

    `allowed`: codes of problems that are none for this evaluator.
    """
    rows = fold_rows(examples, in_batch=False, sampler="shuffle")
    if errors := [each for each in _run([*ERRORS, _one_label], rows, origin) if each.code not in allowed]:
        raise DataError(errors)
    warnings = _run([_id_column, _class_labels, _swapped_negative, _upside_down_labels], rows, origin)
    return [each for each in warnings if each.code not in allowed]


def fold_rows(examples: Examples, in_batch: bool, sampler: str) -> ExamplesToLint:
    folded = {role: [text and fold(text) for text in texts] for role, texts in examples.texts.items()}
    return ExamplesToLint(examples, folded, in_batch, sampler)


def _run(checks: list[Check], rows: ExamplesToLint, origin: str) -> list[Problem]:
    # Any of these mistakes may come from a wrong column, so the key is always `columns`.
    return [replace(problem, file=origin, key="columns") for check in checks for problem in check(rows)]


def _same_column(rows: ExamplesToLint) -> Iterator[Problem]:
    """Two roles that always hold the same text read one column, and a text teaches nothing about itself."""
    for first, second in combinations(rows.folded, 2):
        if rows.folded[first] == rows.folded[second]:
            yield Problem(f"{first} and {second} are the same text in every row: check `columns`", "same-column")


def _constant_text(rows: ExamplesToLint) -> Iterator[Problem]:
    """A text that never changes is another kind of column (`source`, `language`), and teaches nothing."""
    for role, texts in rows.folded.items():
        if len(texts) >= 10 and all(text == texts[0] for text in texts):
            yield Problem(f"{role} is {texts[0]!r:.60} in every row: check `columns`", "constant-text")


def _no_words(rows: ExamplesToLint) -> Iterator[Problem]:
    """A label or an id in the role of a text is embedded like a text."""
    yield from _pattern_problems(rows, r"[\W\d_]*", "no-words", "contains no words")


def _id_column(rows: ExamplesToLint) -> Iterator[Problem]:
    """The same for ids with letters. Only a warning, since part numbers may be what users search for."""
    yield from _pattern_problems(rows, r"[!-~]*\d[!-~]*", "id-column", "looks like an id column")


def _pattern_problems(rows: ExamplesToLint, pattern: str, code: str, message: str) -> Iterator[Problem]:
    for role, texts in rows.folded.items():
        sample = [text for text in _subsample(texts) if text is not None]
        if sum(re.fullmatch(pattern, text) is not None for text in sample) > 0.9 * len(sample):
            yield Problem(f"{role} {message}, such as {sample[0]!r:.60}: check `columns`", code)


def _few_texts(rows: ExamplesToLint) -> Iterator[Problem]:
    """A role with few values is probably a class: most rows of a batch would be false negatives."""
    for role, texts in rows.folded.items():
        if len(texts) >= 100 and len(set(texts)) <= len(texts) // 50:
            found = f"{len(set(texts))} different texts in {len(texts)} rows, such as {texts[0]!r:.60}"
            yield Problem(f"{role} has only {found}: is it a class label? Check `columns`", "few-texts")


UTF_8_MISREAD = re.compile("\ufffd|[\u00c3\u00d0\u00d1][\u0080-\u00bf]|\u00c2[\u00a0-\u00bf]|\u00e2\u20ac")
CONTROLS = re.compile("[\u0080-\u009f]")
"""No text has them, but latin-1 makes them of the quotes, dashes and the euro sign of cp1252."""


def _damaged_text(rows: ExamplesToLint) -> Iterator[Problem]:
    """The model learns damaged characters, which never occur where it is used."""
    joined = ("\n".join(filter(None, parts)) for parts in zip(*rows.examples.texts.values(), strict=True))
    texts = {position: text for position, text in enumerate(joined) if not text.isascii()}
    misread = [position for position, text in texts.items() if UTF_8_MISREAD.search(text)]
    yield from rows.problem(
        "damaged-text", "text decoded with the wrong encoding (set `read: {encoding: ...}`)", misread
    )
    controls = {position for position, text in texts.items() if CONTROLS.search(text)} - set(misread)
    message = "control characters, as of cp1252 that is read as latin-1 (set `read: {encoding: cp1252}`)"
    yield from rows.problem("damaged-text", message, sorted(controls))


PLACEHOLDERS = {"nan", "none", "null", "n/a", "#n/a", "<na>", "undefined"}
"""What str() and spreadsheets make of a missing value."""


def _placeholders(rows: ExamplesToLint) -> Iterator[Problem]:
    """A gap written as a word is a text like any other: the model learns that all gaps mean the same."""
    tuples = rows.tuples()
    at = [position for position, texts in enumerate(tuples) if not PLACEHOLDERS.isdisjoint(texts)]
    first = next((text for text in tuples[at[0]] if text in PLACEHOLDERS), "") if at else ""
    yield from rows.problem("placeholder", f"texts such as {first!r}, trained on as texts (write gaps as empty)", at)


def _duplicate_rows(rows: ExamplesToLint) -> Iterator[Problem]:
    """A duplicate has twice the weight, and a holdout may contain rows that were trained on."""
    labels = rows.examples.label
    first_position: dict[object, int] = {}
    at = [
        position
        for position, texts in enumerate(rows.tuples())
        if first_position.setdefault((texts, None if labels is None else labels[position]), position) != position
    ]
    yield from rows.problem("duplicate-rows", "duplicates of earlier rows", at)


def _contradictory_labels(rows: ExamplesToLint) -> Iterator[Problem]:
    """The same texts with different labels pull in both directions, and their loss never falls."""
    if rows.examples.label is None:
        return
    is_ordered = rows.examples.label_kind == "class"  # premise and hypothesis, for example
    keys = [texts if is_ordered else tuple(sorted(map(str, texts))) for texts in rows.tuples()]
    labels_of = defaultdict(set)
    for key, label in zip(keys, rows.examples.label.tolist(), strict=True):
        labels_of[key].add(label)
    at = [position for position, key in enumerate(keys) if len(labels_of[key]) > 1]
    yield from rows.problem("contradictory-labels", "the same texts with different labels", at)


def _equal_texts(rows: ExamplesToLint) -> Iterator[Problem]:
    """Equal texts have equal embeddings: a pair of them teaches nothing, and can't become dissimilar."""
    if len(rows.folded) == 1:
        return
    labels = rows.examples.label
    at = [position for position, texts in enumerate(rows.tuples()) if texts[0] == texts[1]]
    if labels is None or rows.examples.format == "triplet":
        yield from rows.problem("equal-texts", "the positive equals its anchor", at)
    elif rows.examples.label_kind != "class":
        dissimilar = [position for position in at if labels[position] < 0.5]
        yield from rows.problem("equal-texts", "identical sentences labeled as dissimilar", dissimilar)


def _negative_is_right(rows: ExamplesToLint) -> Iterator[Problem]:
    """A negative that equals the anchor or the positive separates texts that should be close."""
    if rows.examples.format == "triplet":
        at = [
            position
            for position, (anchor, positive, *negatives) in enumerate(rows.tuples())
            if anchor in negatives or positive in negatives
        ]
        yield from rows.problem("negative-is-right", "a negative equals the anchor or the positive", at)


def _swapped_negative(rows: ExamplesToLint) -> Iterator[Problem]:
    """With positive and negative swapped, training runs, but makes the model worse in every step."""
    if rows.examples.format != "triplet":
        return
    sample = _subsample(rows.tuples())
    with_positive = np.array([_word_overlap(texts[0], texts[1]) for texts in sample])
    with_negative = np.array([_word_overlap(texts[0], texts[2]) for texts in sample])
    if _is_clearly_negative(with_positive - with_negative):
        message = (
            f"anchors share fewer words with their positives ({with_positive.mean():.0%}) than with their negatives "
            f"({with_negative.mean():.0%}): are the columns swapped?"
        )
        yield Problem(message, "swapped-negative")


def _upside_down_labels(rows: ExamplesToLint) -> Iterator[Problem]:
    """If similar pairs have low labels, training runs, but makes the model worse in every step."""
    labels = rows.examples.label
    if labels is None or rows.examples.format != "labeled_pair" or rows.examples.label_kind == "class":
        return
    overlap = np.array([_word_overlap(texts[0], texts[1]) for texts in _subsample(rows.tuples())])
    labels = _subsample(labels)
    # The mean of these products is positive if pairs with a higher label share more words.
    if _is_clearly_negative((overlap - overlap.mean()) * (labels - labels.mean())):
        message = (
            "pairs with low labels share more words than pairs with high labels: does a high label mean similar? "
            "`label_map` can invert the labels"
        )
        yield Problem(message, "upside-down-labels")


def _swapped_roles(rows: ExamplesToLint) -> Iterator[Problem]:
    """With query and document swapped, texts get the wrong prompts, and search is trained backwards."""
    if rows.examples.format not in ("positive_pair", "triplet"):
        return
    anchor, positive = (
        np.median([len(text) for text in rows.examples.texts[role] if text is not None])
        for role in ("anchor", "positive")
    )
    if anchor >= 3 * positive:
        message = (
            f"anchors are much longer (median {anchor:.0f} characters) than positives ({positive:.0f}): "
            "if these are queries and documents, `columns` has them swapped"
        )
        yield Problem(message, "swapped-roles")


def _false_negatives(rows: ExamplesToLint) -> Iterator[Problem]:
    """A text that is right for two anchors of one batch is pushed away from one of them."""
    if not rows.in_batch:
        return
    is_shuffled = rows.sampler == "shuffle"
    at: set[int] = set()
    for role in rows.folded.keys() & {"anchor", "positive", "text"}:
        folded, texts = rows.folded[role], rows.examples.texts[role]
        # Other samplers keep equal texts apart, but not those that differ in case or whitespace.
        if len(set(folded)) == (len(texts) if is_shuffled else len(set(texts))):
            continue
        spellings = folded if is_shuffled else [key for key, _ in set(zip(folded, texts, strict=True))]
        repeated = {key for key, count in Counter(spellings).items() if count > 1}
        at |= {position for position, key in enumerate(folded) if key in repeated}
    which = "texts" if "text" in rows.folded else "anchors or positives"
    hint = "use `sampler: no_duplicates`" if is_shuffled else "they differ only in case or whitespace"
    yield from rows.problem("false-negatives", f"{which} that occur in several rows ({hint})", sorted(at))


def _lonely_class(rows: ExamplesToLint) -> Iterator[Problem]:
    """A class with one row has no positive, so the sampler skips the row; if most are such, they are no classes."""
    examples = rows.examples
    if examples.label is None or examples.label_kind == "score" or examples.format == "triplet":
        return
    _, inverse, counts = np.unique(examples.label, return_inverse=True, return_counts=True)
    at = np.flatnonzero(counts[inverse] == 1)
    hint = ": is the label an id? Check `columns`" if len(at) > len(examples) / 2 >= 5 else ""
    if rows.sampler == "group_by_label":
        yield from rows.problem("lonely-class", f"classes with one row, which is never used{hint}", at)
    elif hint:
        yield from rows.problem("lonely-class", f"classes with one row{hint}", at)


def _class_numbers(rows: ExamplesToLint) -> Iterator[Problem]:
    """A classifier gets an output for every number up to the largest label, even if no row has it."""
    examples = rows.examples
    # The label of a triplet is any number.
    if examples.label is None or examples.label_kind != "class" or examples.label_names or examples.format == "triplet":
        return
    maximum = int(examples.label.max())
    present = set(examples.label.tolist())  # ids may be as large as 2**31
    if missing := list(islice((number for number in range(maximum + 1) if number not in present), 6)):
        which = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
        message = f"classes go up to {maximum}, but class {which} has no rows: number them from 0 (`label_map`)"
        yield Problem(message, "class-numbers")


def _narrow_labels(rows: ExamplesToLint) -> Iterator[Problem]:
    """Scores in a small part of 0..1 were rescaled wrongly, or not at all."""
    labels = rows.examples.label
    if labels is None or rows.examples.label_kind != "score" or rows.examples.format == "triplet":
        return
    if np.ptp(labels) < 0.5:
        message = f"scores only range from {labels.min():g} to {labels.max():g}: `label_range` rescales them to 0..1"
        yield Problem(message, "narrow-labels")


def _one_label(rows: ExamplesToLint) -> Iterator[Problem]:
    """Nothing correlates with a constant."""
    labels = rows.examples.label
    if labels is not None and np.ptp(labels) == 0:
        yield Problem(f"all {len(labels)} labels are {labels[0]:g}, so nothing can be measured", "one-label")


def _class_labels(rows: ExamplesToLint) -> Iterator[Problem]:
    """Class numbers assigned by name are no measure of similarity."""
    names = rows.examples.label_names
    if names and rows.examples.format == "labeled_pair" and rows.examples.label_kind == "class":
        listed = ", ".join(names[:5])
        message = f"labels are classes ({listed}): does a higher number mean more similar? See `label_map`"
        yield Problem(message, "class-labels")


ERRORS: list[Check] = [_same_column, _constant_text, _no_words]
WARNINGS: list[Check] = [
    _id_column,
    _few_texts,
    _damaged_text,
    _placeholders,
    _duplicate_rows,
    _contradictory_labels,
    _equal_texts,
    _negative_is_right,
    _swapped_negative,
    _upside_down_labels,
    _swapped_roles,
    _false_negatives,
    _lonely_class,
    _class_numbers,
    _narrow_labels,
]


def _subsample(values: Any) -> Any:
    """At most SAMPLE of the values of a list or array, evenly spaced."""
    return values[:: -(-len(values) // SAMPLE) or 1]


def _word_overlap(first: str | None, second: str | None) -> float:
    """Share of words that two folded texts have in common (Jaccard index), in 0..1."""
    words, other_words = set((first or "").split()), set((second or "").split())
    return len(words & other_words) / max(1, len(words | other_words))


def _is_clearly_negative(values: np.ndarray) -> bool:
    """Whether their mean is below zero by more than five standard errors: chance does not explain it."""
    return len(values) >= 50 and bool(values.mean() < -5 * values.std() / np.sqrt(len(values)))
