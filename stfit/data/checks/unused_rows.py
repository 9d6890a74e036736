"""Dropped rows and ignored columns."""

from itertools import chain

from stfit.data.checks.leakage import SHARED
from stfit.data.mapping.columns import resolve_columns
from stfit.data.mapping.examples import Examples, is_blank
from stfit.data.mapping.filters import filter_rows
from stfit.data.mapping.selectors import parse_selector, select
from stfit.data.source import TrainingData
from stfit.data.table import Table, name_rows
from stfit.errors import Problem
from stfit.io.yaml_text import to_hint

FLAG_VALUES = ({0, 1}, {"0", "1"})
"""Values of a column of flags; true and false equal 1 and 0."""


def dropped_rows(table: Table, source: TrainingData, examples: Examples) -> list[Problem]:
    """Rows without a text or a label; many of them suggest wrong `columns`."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in examples.dropped.items() if reason != SHARED)
    if not reasons:
        return []
    rows = sorted(_blank_rows(filter_rows(table, source.where), source))
    at = f" ({name_rows(rows)})" if rows else ""
    count = examples.without_negative
    hint = f"; {count} of them lack only a negative, and can train as pairs (format positive_pair)" if count else ""
    return [Problem(f"dropped: {reasons}{at}{hint}", "dropped-rows", table.origin, row=rows[0] if rows else None)]


def _blank_rows(table: Table, source: TrainingData) -> set[int]:
    """Numbers of the rows with an empty cell in a role of one text; lists are not considered."""
    blank: set[int] = set()
    for selector in chain(*resolve_columns(table, source.columns, source.format).values()):
        if selector.tail is None and not selector.has_slice:
            rows = zip(table.row.tolist(), select(table, selector.text), strict=True)
            blank |= {row for row, cell in rows if isinstance(cell, str | None) and is_blank(cell)}
    return blank


def unused_flags(table: Table, source: TrainingData) -> list[Problem]:
    """An unused 0/1 column may mark the positive rows; without `where`, the other rows are trained as positives too."""
    if source.format not in ("positive_pair", "triplet"):
        return []
    selectors = chain(*resolve_columns(table, source.columns, source.format).values())
    used = set(chain.from_iterable(selector.columns for selector in selectors))
    used |= set(chain.from_iterable(parse_selector(text, list(table.columns)).columns for text in source.where))
    hint = "contains only 0 and 1, but is not used: if it marks the positive rows, set"
    return [
        Problem(f"column `{name}` {hint} `where: {to_hint({name: 1})}`", "unread-flag", table.origin)
        for name, cells in table.columns.items()
        if name not in used and all(isinstance(cell, int | str) for cell in cells) and set(cells) in FLAG_VALUES
    ]
