"""Dropped rows, ignored columns, and classes that rows lack."""

from itertools import chain

import numpy as np

from stfit.data.checks.leakage import SHARED
from stfit.data.mapping.columns import resolve_columns
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.filters import filter_rows
from stfit.data.mapping.load_examples import is_blank
from stfit.data.mapping.selectors import parse_selector, select
from stfit.data.source import Source, TrainingData
from stfit.data.table import Table, name_rows
from stfit.errors import MAX_SHOWN, Problem
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


def missing_classes(source: Source, examples: Examples) -> list[Problem]:
    """Classes that a slice or a limit leaves out: in a split that is sorted by class, the first rows have few."""
    is_cut = "[" in source.split or source.limit is not None
    total = len(examples.label_names or ())
    found = len(present_classes(examples))
    if source.shuffle or not is_cut or found >= total:
        return []
    hint = "if the split is sorted by class, write `shuffle: true` with `limit` instead of a slice"
    return [Problem(f"the rows have {found} of {total} classes: {hint}", "missing-classes", source.dataset)]


def unseen_classes(trained: Examples, measured: Examples, origin: str) -> list[Problem]:
    """Classes that are measured and never trained. Labels of another kind share no class, and are passed over."""
    known, asked = present_classes(trained), present_classes(measured)
    unseen = sorted(asked - known)
    if not unseen or not asked & known:
        return []
    shown = f"{', '.join(unseen[:MAX_SHOWN])}{', ...' if len(unseen) > MAX_SHOWN else ''}"
    return [Problem(f"training has no row of {len(unseen)} of {len(asked)} classes: {shown}", "unseen-classes", origin)]


def present_classes(examples: Examples) -> set[str]:
    """Names of the classes that occur; empty if they have no names."""
    if examples.label is None or not examples.label_names:
        return set()
    return {examples.label_names[number] for number in np.unique(examples.label).tolist()}
