"""Leakage: texts of evaluators that are also trained on, whose metrics then show what the model remembers.

Every text is compared by itself and as a number of 64 bits, so that a million rows need a few megabytes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.data.mapping.plain_text import plain
from stfit.data.table import name_rows
from stfit.errors import Problem

SHARED = "shared with an evaluator"
"""Reason in `Examples.dropped` of rows that `drop_overlap` leaves out."""
NO_TEXT = 0
"""Number of an absent text."""
ADVICE = "measure on other rows, or leave these out of training with `data.drop_overlap: true`"


class Column(NamedTuple):
    texts: Sequence[str | None]
    row: np.ndarray
    """Row of each text in its file, from 1."""


class Measured(NamedTuple):
    """The texts of an evaluator."""

    name: str
    origin: str
    columns: dict[str, Column]
    """By role, those that training must not contain."""
    examples: Examples
    is_held_out: bool = False
    """Whether they are rows of the training data."""


def columns_of(examples: Examples) -> dict[str, Column]:
    """The texts by role, with several negatives as one column."""
    single = {role: Column(texts, examples.row) for role, texts in examples.texts.items()}
    negatives = [single.pop(role) for role in examples.negatives]
    if not negatives:
        return single
    texts = [text for column in negatives for text in column.texts]
    return single | {"negative": Column(texts, np.concatenate([column.row for column in negatives]))}


def numbers_of(texts: Iterable[str | None]) -> np.ndarray:
    """A number per text, equal for texts that `plain` makes equal. It differs in each process, as `hash` does."""
    return np.fromiter((hash(plain(text)) if text else NO_TEXT for text in texts), dtype=np.int64)


class _Seen:
    """Numbers of evaluation texts, and which of them training has: training may be far larger than what is kept."""

    def __init__(self, numbers: list[np.ndarray]) -> None:
        self.known = np.unique(np.concatenate([np.array([NO_TEXT]), *numbers]))
        self.seen = np.zeros(len(self.known), dtype=bool)

    def add(self, trained: np.ndarray) -> None:
        place = np.searchsorted(self.known, trained).clip(max=len(self.known) - 1)
        self.seen[place[self.known[place] == trained]] = True

    def rows(self, numbers: np.ndarray, row: np.ndarray) -> list[int]:
        """The rows whose numbers training has."""
        return row[are_among(numbers, self.known[self.seen])].tolist()


def shared_texts(
    training: Iterable[Examples],
    evaluations: list[Measured],
    advice: Callable[[Measured], str] = lambda measured: ADVICE,
) -> list[Problem]:
    """Evaluators that share texts with training: how many in each column, in which rows, and what to do."""
    numbers = [{role: numbers_of(column.texts) for role, column in each.columns.items()} for each in evaluations]
    wholes = [_whole(list(map(numbers_of, list(each.examples.texts.values())[:2]))) for each in evaluations]
    texts, examples = _Seen([number for each in numbers for number in each.values()]), _Seen(wholes)
    for block in training:
        trained = [numbers_of(column) for column in block.texts.values()]
        for column in trained:
            texts.add(column)
        examples.add(_whole(trained))
    problems = []
    for measured, numbers_by_role, whole in zip(evaluations, numbers, wholes, strict=True):
        rows = {role: texts.rows(numbers_by_role[role], column.row) for role, column in measured.columns.items()}
        shared = examples.rows(whole, measured.examples.row)
        if any(rows.values()):
            problems.append(_describe(measured, rows, shared, advice(measured)))
    return problems


def _describe(measured: Measured, rows_by_role: dict[str, list[int]], whole: list[int], advice: str) -> Problem:
    parts = [
        f"{len(rows)} of {len(measured.columns[role].texts)} in {role} ({name_rows(rows)})"
        for role, rows in rows_by_role.items()
        if rows
    ]
    if whole:
        parts.append(f"{len(whole)} of {len(measured.examples)} examples are trained on, {name_rows(whole)}")
    message = f"evaluator `{measured.name}` shares texts with training: {', '.join(parts)}: {advice}"
    first = min(rows[0] for rows in rows_by_role.values() if rows)
    return Problem(message, "shared-rows" if whole else "shared-texts", measured.origin, row=first)


def separating_roles(training: Examples, measured: Measured) -> list[str]:
    """Roles to group a holdout by, so that it shares no text with training that it must not share.

    `training` and the rows that are held out are all rows of a source. A role separates them if every text stands only
    in rows with one and the same text of this role.
    """
    columns = {
        role: [*texts, *measured.examples.texts[role]]
        for role, texts in training.texts.items()
        if role in measured.examples.texts
    }
    compared = {"anchor" if role == "query" else role for role in measured.columns}
    numbers = [numbers_of(texts) for role, texts in columns.items() if role.partition("_")[0] in compared]
    return [role for role, texts in columns.items() if _is_in_one_group(numbers, np.array(list(map(hash, texts))))]


def _is_in_one_group(columns: list[np.ndarray], group: np.ndarray) -> bool:
    """Whether each number, in whatever column, is in rows of one group only."""
    pairs = np.stack([np.concatenate(columns), np.concatenate([group] * len(columns))])
    pairs = np.unique(pairs[:, pairs[0] != NO_TEXT], axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1]


def _whole(numbers: list[np.ndarray]) -> np.ndarray:
    """One number per example: of its text, or of its first two texts without their order. Negatives are ignored."""
    if len(numbers) == 1:
        return numbers[0]
    return np.minimum(*numbers[:2]) * 31 + np.maximum(*numbers[:2])


def are_among(numbers: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which numbers are known, [n]; an absent text never is."""
    return np.isin(numbers, known) & (numbers != NO_TEXT)


def numbers_in(evaluations: list[Measured]) -> np.ndarray:
    """The numbers of all texts of the evaluators."""
    columns = [column for measured in evaluations for column in measured.columns.values()]
    return np.unique(np.concatenate([np.array([NO_TEXT]), *(numbers_of(column.texts) for column in columns)]))


def without_texts(examples: Examples, known: np.ndarray) -> Examples:
    """The examples none of whose texts is known (see `numbers_in`); may be empty."""
    shared = np.zeros(len(examples), dtype=bool)
    for texts in examples.texts.values():
        shared |= are_among(numbers_of(texts), known)
    if not shared.any():
        return examples
    dropped = examples.dropped | {SHARED: int(shared.sum())}
    return replace(examples.take(np.flatnonzero(~shared)), dropped=dropped)
