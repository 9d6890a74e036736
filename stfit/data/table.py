"""Rows of a dataset by column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from stfit.data.source import read_hint
from stfit.errors import DataError, Problem, closest_hint, did_you_mean

SHOWN_ROWS = 5
DELIMITERS = ";\t|,"


@dataclass(frozen=True)
class Table:
    """Cells by column, one per row; None if a row has no value."""

    origin: str
    columns: dict[str, list[Any]]
    row: np.ndarray
    """Number of each row in its split, from 1: the line, in a JSON Lines file without blank lines."""
    label_names: dict[str, list[str]]
    """Column -> names of its classes 0, 1, ..., if the dataset defines them."""

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: np.ndarray) -> Table:
        columns = {name: [cells[i] for i in index.tolist()] for name, cells in self.columns.items()}
        return replace(self, columns=columns, row=self.row[index])

    def cells(self, column: str) -> list[Any]:
        if column not in self.columns:
            raise DataError(self.missing(column))
        return self.columns[column]

    def missing(self, column: str, taken: Sequence[str] = ()) -> Problem:
        """The problem of a missing column; a column `taken` by another role is not suggested instead."""
        known = list(self.columns)
        free = [name for name in known if name not in taken]
        hint = delimiter_hint(known) or closest_hint(column, free) or did_you_mean(column, known)
        listing = "" if hint.startswith("known") else f" (columns: {', '.join(known)})"
        return Problem(f"there is no column `{column}`: {hint}{listing}", "missing-column", self.origin)


def delimiter_hint(names: Sequence[str]) -> str:
    """A hint if the only column looks like several with another delimiter; else empty."""
    delimiter = next((char for char in DELIMITERS if char in names[0]), None) if len(names) == 1 else None
    return f"if {delimiter!r} is the delimiter, {read_hint('delimiter', json.dumps(delimiter))}" if delimiter else ""


def build_table(origin: str, columns: dict[str, list[Any]], label_names: dict[str, list[str]]) -> Table:
    rows = len(next(iter(columns.values()), ()))
    return Table(origin, columns, np.arange(1, rows + 1), label_names)


def concatenate(tables: Sequence[Table]) -> Table:
    names = dict.fromkeys(name for table in tables for name in table.columns)
    columns = {
        name: list(chain.from_iterable(table.columns.get(name) or [None] * len(table) for table in tables))
        for name in names
    }
    label_names = {name: listed for table in tables for name, listed in table.label_names.items()}
    return Table(tables[0].origin, columns, np.concatenate([table.row for table in tables]), label_names)


def name_rows(rows: Sequence[int]) -> str:
    """`row 7`, or `rows 1, 2, 3, 4, 5 and 12 more`: each row once, in the order given."""
    rows = list(dict.fromkeys(int(row) for row in rows))
    shown = ", ".join(str(row) for row in rows[:SHOWN_ROWS])
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}{more}"
