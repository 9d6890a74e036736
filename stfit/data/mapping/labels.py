"""Labels in the data -> numbers for a loss."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

import numpy as np

from stfit.data.mapping.cells import number_in, plain_number
from stfit.data.source import Source
from stfit.data.table import name_rows
from stfit.errors import DataError, Problem, at_key, did_you_mean

LabelKind = Literal["none", "binary", "class", "score"]
"""None; integers that are all 0 or 1; other integers, or numbered names; floats."""

MAX_LABEL = 2**31


@dataclass(frozen=True)
class Labels:
    values: np.ndarray
    """int64 classes or float64 scores; 0 where `present` is false."""
    present: np.ndarray
    """False if the data has no label."""
    kind: LabelKind
    names: list[str] | None
    numbered: bool = False
    """Whether classes were numbered by the names that occur, not by the recipe or the dataset."""


def compute_labels(
    cells: list[Any], rows: np.ndarray, source: Source, names: list[str] | None, is_margin: bool = False
) -> Labels:
    """Apply `label_map` and `label_range`; number classes that are text, in sorted order. Raises DataError, with rows.

    `rows`: row numbers of the cells; `names`: the dataset's names of its classes. Floats that are all whole are
    integers, as pandas makes floats of a column with a gap, unless the label is a margin of scores.
    """
    present = np.array([cell is not None and cell != "" for cell in cells], dtype=bool)
    known, rows = list(map(plain_number, compress(cells, present))), rows[present]
    kinds = (str, bool, int, float)
    _refuse(known, rows, lambda cell: not isinstance(cell, kinds), "a label must be a number, true/false or text")
    named, given = False, names
    if source.label_map is not None:
        known, names = _map_labels(known, rows, source.label_map, names)
    elif any(isinstance(cell, str) for cell in known):
        known, names, named = _read_text_labels(known, rows, names)
    # Negated, so that NaN is refused too.
    bounds = "a label must be finite and at most 2**31 (`where` leaves rows out: `{COLUMN: {present: true}}`)"
    _refuse(known, rows, lambda value: not -MAX_LABEL <= value <= MAX_LABEL, bounds)
    if not is_margin and all(float(value).is_integer() for value in known):
        known = [int(value) for value in known]
    if source.label_range is not None:
        with at_key("label_range"):
            known, names = _rescale(known, rows, source.label_range, named), None
    whole = all(isinstance(value, int) for value in known)
    values = np.zeros(len(cells), dtype=np.int64 if whole else np.float64)
    values[present] = known
    if not whole:
        return Labels(values, present, "score", None)
    if names is not None:
        reason = f"the dataset names classes 0 to {len(names) - 1}"
        _refuse(known, rows, lambda value: not 0 <= value < len(names), reason)
    binary = not named and all(value in (0, 1) for value in known)
    return Labels(values, present, "binary" if binary else "class", names, named and names is not given)


def _map_labels(
    cells: list[Any], rows: np.ndarray, mapping: dict[str, int | float], names: list[str] | None
) -> tuple[list[int | float], list[str] | None]:
    name_of = dict(enumerate(names or []))
    keys = [_key_of(cell, mapping, name_of) for cell in cells]
    problems = []
    for key in dict.fromkeys(key for key in keys if key not in mapping):
        at = [row for row, row_key in zip(rows.tolist(), keys, strict=True) if row_key == key]
        hint = did_you_mean(key, list(mapping))
        message = f"`label_map` has no entry for the label `{key}` of {name_rows(at)} ({hint})"
        problems.append(Problem(message, "unmapped-label", row=at[0], key="label_map"))
    if problems:
        raise DataError(problems)
    inverse = {value: key for key, value in mapping.items()}
    one_to_one = len(inverse) == len(mapping) and sorted(inverse) == list(range(len(inverse)))
    return [mapping[key] for key in keys], [inverse[i] for i in range(len(inverse))] if one_to_one else None


def _key_of(cell: Any, mapping: dict[str, int | float], name_of: dict[int, str]) -> str:
    """The key of `label_map` that a label means: as it is written, as a whole number, or as the name of its class."""
    key = str(cell).lower() if isinstance(cell, bool) else str(cell)
    if key in mapping or isinstance(cell, str) or (isinstance(cell, float) and not cell.is_integer()):
        return key
    whole = int(cell)
    return str(whole) if str(whole) in mapping else name_of.get(whole, key)


def _read_text_labels(
    cells: list[Any], rows: np.ndarray, names: list[str] | None
) -> tuple[list[int | float], list[str] | None, bool]:
    """Numbers, if all labels are numbers written as text (CSV), else classes; names; and whether labels are names."""
    texts = sum(isinstance(cell, str) for cell in cells)
    if texts < len(cells) / 2:  # report the minority
        _refuse(cells, rows, lambda cell: isinstance(cell, str), "the labels of most other rows are numbers")
    _refuse(cells, rows, lambda cell: not isinstance(cell, str), "the labels of most other rows are text")
    numbers = [number_in(cell) for cell in cells]
    if None not in numbers:
        return [number for number in numbers if number is not None], names, False
    classes = sorted(set(cells))
    if names is not None and set(classes) <= set(names):
        classes = names
    index = {name: number for number, name in enumerate(classes)}
    return [index[cell] for cell in cells], classes, True


def _rescale(values: list[int | float], rows: np.ndarray, bounds: list[float], named: bool) -> list[float]:
    low, high = bounds
    if named:
        raise DataError("`label_range` rescales numbers, but these labels are names: use `label_map`")
    _refuse(values, rows, lambda value: not low <= value <= high, f"`label_range` is [{low:g}, {high:g}]")
    return [(value - low) / (high - low) for value in values]


def _refuse(cells: list[Any], rows: np.ndarray, is_wrong: Callable[[Any], bool], reason: str) -> None:
    at = [position for position, cell in enumerate(cells) if is_wrong(cell)]
    if at:
        message = f"{reason}; found {cells[at[0]]!r:.60} ({name_rows(rows[at].tolist())})"
        raise DataError(Problem(message, "bad-label", row=int(rows[at[0]])))
