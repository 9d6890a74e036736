"""Scores of a teacher in the data: for each row a list of numbers, the positive's first, then one for each negative."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stfit.data.mapping.cells import number_in
from stfit.data.table import name_rows
from stfit.errors import DataError, Problem

Scores = list[list[float] | None]
"""None for a row without scores."""


def read_scores(cells: list[Any], negatives: list[list[Any]], rows: np.ndarray) -> Scores:
    """The numbers of each row. Raises DataError, with rows, for lists of another length than the candidates, or NaN."""
    scores: Scores = []
    wrong: dict[str, list[int]] = {}
    for cell, texts, row in zip(cells, negatives, rows.tolist(), strict=True):
        numbers = [_number(value) for value in cell] if isinstance(cell, list) else None
        if cell is None or cell == []:
            scores.append(None)
        elif numbers is None:
            wrong.setdefault(f"is not a list of numbers, but {cell!r:.60}", []).append(row)
        elif None in numbers:
            wrong.setdefault(f"holds {cell[numbers.index(None)]!r:.60}, which is no finite number", []).append(row)
        elif len(numbers) != 1 + len(texts):
            found = f"has {len(numbers)} numbers for a positive and {len(texts)} negatives: one for each is needed"
            wrong.setdefault(found, []).append(row)
        else:
            scores.append([number for number in numbers if number is not None])
    if wrong:
        raise DataError(
            [
                Problem(f"scores {reason} ({name_rows(at)})", "bad-scores", row=at[0], key="columns.scores")
                for reason, at in wrong.items()
            ]
        )
    return scores


def _number(value: Any) -> float | None:
    number = number_in(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return None
    return float(number)


def pad_scores(scores: Sequence[list[float]]) -> np.ndarray:
    """[rows, candidates] float64, with NaN where a row has fewer than others."""
    padded = np.full((len(scores), max(map(len, scores), default=0)), np.nan)
    for row, numbers in enumerate(scores):
        padded[row, : len(numbers)] = numbers
    return padded
