"""Rows of a dataset -> examples: texts by role, with their labels.

The order is fixed: split, where, holdout, selectors, labels, dropped empties, shuffle, limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.mapping.cells import is_missing, without_point
from stfit.data.mapping.columns import check_roles, resolve_columns
from stfit.data.mapping.examples import GENERATED_BY, Examples, negative_roles
from stfit.data.mapping.filters import choose_holdout, filter_rows, matching
from stfit.data.mapping.labels import Labels, compute_labels
from stfit.data.mapping.scores import Scores, pad_scores, read_scores
from stfit.data.mapping.selectors import Selector, expand, select_or_raise
from stfit.data.mapping.vectors import Vectors, read_vectors, stack_vectors
from stfit.data.reading.load_table import load_table, open_blocks, split_of
from stfit.data.reading.split import is_whole
from stfit.data.source import Holdout, ReadOptions, Source, TrainingData, is_remote, label_selector, read_hint
from stfit.data.table import Table, concatenate, name_rows
from stfit.errors import DataError, Problem, at_key
from stfit.io.unicode import is_unicode
from stfit.io.yaml_text import to_hint
from stfit.progress import task

MIN_ROWS = 10_000
"""Rows that are read at least for a `limit`, as some may have no text."""


@dataclass(frozen=True)
class UnfilteredExamples:
    """Examples before empties are dropped: every role has one cell per example, and `negative` a list of them."""

    table: Table
    format: str
    cells: dict[str, list[Any]]
    labels: Labels | None
    parent: np.ndarray
    """Position in the table of the row that each example comes from."""
    scores: Scores | None = None
    vectors: Vectors | None = None
    kept: dict[str, list[Any]] = field(default_factory=dict)


def load_examples(
    source: Source, format: str, seed: int, holdout: Holdout | None = None, keep: Sequence[str] = ()
) -> tuple[Examples, Examples | None]:
    """The examples of a source, and those held out from it. Raises RecipeError, or DataError with row numbers.

    `keep`: columns, or paths into them, that the examples keep beside their roles.
    """
    training, held_out, _ = load_with_table(source, format, seed, holdout, keep)
    return training, held_out


def load_with_table(
    source: Source, format: str, seed: int, holdout: Holdout | None = None, keep: Sequence[str] = ()
) -> tuple[Examples, Examples | None, Table]:
    """The examples, those held out, and the table with all rows that they were taken from.

    The order is fixed: split, where, holdout (whole rows), selectors, label_map, label_range, dropped empties, shuffle,
    limit; the last two do not apply to the holdout.
    """
    check_roles(source.columns, format)
    for whole in _tables(source, format, holdout):
        if not len(whole):
            raise DataError(Problem(_no_rows(source), "no-rows", whole.origin, key="split"))
        try:
            with task(f"building examples of {len(whole):,} rows"):
                training, held_out = _split_examples(whole, source, format, seed, holdout, keep)
        except DataError as error:
            raise DataError([replace(problem, file=whole.origin) for problem in error.problems]) from None
        if len(training) == source.limit:
            break
    return training, held_out, whole


def _no_rows(source: Source) -> str:
    if is_remote(source.dataset) or "split" in source.model_fields_set:
        return f"the split `{split_of(source)}` has no rows"
    return "the file is empty" if Path(source.dataset).is_file() else "no file has rows"


def _tables(source: Source, format: str, holdout: Holdout | None) -> Iterator[Table]:
    """All rows of a split; for a `limit` that the first ones may reach, those, then twice as many, and so on."""
    others_count = source.shuffle or source.where or holdout or label_selector(format, source.columns)
    with at_key("split"):
        is_sliced = not is_whole(source.split)
    if source.limit is None or others_count or is_sliced:
        yield load_table(source)
        return
    parts: list[Table] = []
    rows, wanted = 0, max(source.limit, MIN_ROWS)
    for block in open_blocks(source)():
        if rows >= wanted:
            yield concatenate(parts)
            wanted = 2 * rows
        parts.append(block)
        rows += len(block)
    yield concatenate(parts) if parts else load_table(source)


def _split_examples(
    whole: Table, source: Source, format: str, seed: int, holdout: Holdout | None, keep: Sequence[str]
) -> tuple[Examples, Examples | None]:
    with at_key("where"):
        table = filter_rows(whole, source.where)
    with at_key("holdout"):
        held = choose_holdout(table, holdout) if holdout else np.zeros(len(table), dtype=bool)
    with at_key("columns"):
        # Training and holdout together, so that both get the same class numbers.
        unfiltered = _build_unfiltered(table, source, format)
    with at_key("by"):
        unfiltered = replace(unfiltered, kept=_kept_columns(unfiltered, keep))
    with at_key("columns"):
        training = _shuffle_and_limit(_drop_incomplete(unfiltered, ~held), source, seed)
        return training, _drop_incomplete(unfiltered, held) if holdout else None


def _shuffle_and_limit(examples: Examples, source: Source, seed: int) -> Examples:
    order = np.arange(len(examples))
    if source.shuffle:
        order = np.random.default_rng(seed).permutation(order)
    return examples.take(order[: source.limit]) if source.shuffle or source.limit else examples


def _build_unfiltered(table: Table, source: Source, format: str) -> UnfilteredExamples:
    selectors = resolve_columns(table, source.columns, format)
    cells, parent = _expand_roles(table, selectors, source.max_per_row)
    rows = table.row[parent]
    label_cells, score_cells, vector_cells = (cells.pop(role, None) for role in ("label", "scores", "embedding"))
    cells = {role: list(map(cell_reader(source.read), column)) for role, column in cells.items()}
    problems = text_problems(cells, rows, selectors)
    labels = None
    if label_cells is not None:
        try:
            with at_key("columns.label"):
                names = table.label_names.get(selectors["label"][0].text)
                labels = compute_labels(label_cells, rows, source, names, is_margin=format == "triplet")
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    scores = None if score_cells is None else read_scores(score_cells, cells["negative"], rows)
    vectors = None if vector_cells is None else read_vectors(vector_cells, rows)
    return UnfilteredExamples(table, format, cells, labels, parent, scores, vectors)


def _kept_columns(unfiltered: UnfilteredExamples, names: Sequence[str]) -> dict[str, list[Any]]:
    kept = {}
    for name in names:
        values = select_or_raise(unfiltered.table, name)
        kept[name] = [values[i] for i in unfiltered.parent.tolist()]
    return kept


def _expand_roles(
    table: Table, selectors: dict[str, list[Selector]], max_per_row: int | None
) -> tuple[dict[str, list[Any]], np.ndarray]:
    # Each selector in a list for `text` makes its own examples; everything else is one run of `expand`.
    runs = [{**selectors, "text": [text]} for text in selectors["text"]] if "text" in selectors else [selectors]
    cells: dict[str, list[Any]] = {role: [] for role in selectors}
    parents = []
    for run in runs:
        values, parent = expand(table, list(chain(*run.values())), max_per_row)
        columns = iter(values)
        for role, role_selectors in run.items():
            role_columns = list(islice(columns, len(role_selectors)))
            cells[role] += _merge_negatives(role_columns, role_selectors) if role == "negative" else role_columns[0]
        parents.append(parent)
    if len(runs) == 1:
        return cells, parents[0]
    order = np.argsort(np.concatenate(parents), kind="stable")
    return {role: [column[i] for i in order.tolist()] for role, column in cells.items()}, np.concatenate(parents)[order]


def _merge_negatives(columns: list[list[Any]], selectors: list[Selector]) -> list[list[Any]]:
    lists = [
        column if selector.has_slice else [[cell] for cell in column]
        for column, selector in zip(columns, selectors, strict=True)
    ]
    return [list(chain(*cells)) for cells in zip(*lists, strict=True)]


def cell_reader(options: ReadOptions) -> Callable[[Any], Any]:
    """What a cell of a text role means: NaN is no text, and a number its digits where `read` says so."""
    as_text = options.numbers == "as_text"

    def read(cell: Any) -> Any:
        if isinstance(cell, str):
            return cell
        if isinstance(cell, list):
            return list(map(read, cell))
        if is_missing(cell):
            return None
        return _digits(cell) if as_text and isinstance(cell, bool | int | float | Decimal) else cell

    return read


def _digits(number: bool | float | Decimal) -> str:
    """A whole number has no point, though pandas makes 7.0 of it in a column with a gap."""
    return str(number).lower() if isinstance(number, bool) else str(without_point(number))


def text_problems(cells: dict[str, list[Any]], rows: np.ndarray, selectors: dict[str, list[Selector]]) -> list[Problem]:
    """Roles with cells that are neither text nor null, or that are text which is not Unicode."""
    problems = []
    for role, column in cells.items():
        pairs: Iterable[tuple[Any, int]] = zip(column, rows.tolist(), strict=True)
        if role == "negative":
            pairs = ((cell, row) for negatives, row in pairs for cell in negatives)
        if wrong := [(cell, row) for cell, row in pairs if not _is_text(cell)]:
            cell, row = wrong[0]
            written = ", ".join(f"`{selector.text}`" for selector in selectors[role])
            found, hint = _explain_cell(cell, selectors[role][0].text, role)
            at = name_rows([row for _, row in wrong])
            message = f"{role} (from {written}) is not text in {at}, but {found}: {cell!r:.60}; {hint}"
            problems.append(Problem(message, "not-text", row=row, key=f"columns.{role}"))
    return problems


def _explain_cell(cell: Any, selector: str, role: str) -> tuple[str, str]:
    """What a cell is that is no text, and what to do."""
    if isinstance(cell, str):
        return "has half a character (a lone surrogate)", "write the whole character, or drop the row"
    if isinstance(cell, bool | int | float | Decimal):
        return "true or false" if isinstance(cell, bool) else "a number", f"{read_hint('numbers', 'as_text')}"
    if isinstance(cell, list):
        every = "`[:]` (several negatives in one row), " if role == "negative" else ""
        return "a list", f"select from it with {every}`{selector}[0]` or `[*]`"
    if isinstance(cell, dict):
        return "a mapping", f"select one of its keys: {', '.join(f'`{selector}.{key}`' for key in list(cell)[:5])}"
    return f"of type {type(cell).__name__}", "write it as text"


def _is_text(cell: Any) -> bool:
    return (isinstance(cell, str) and is_unicode(cell)) or cell is None


def _drop_incomplete(unfiltered: UnfilteredExamples, rows: np.ndarray, allow_none: bool = False) -> Examples:
    """The examples of some rows (a mask over the table) that have all texts and a label."""
    cells = dict(unfiltered.cells)
    inside = rows[unfiltered.parent]
    present = [[not is_blank(text) for text in texts] for texts in cells.get("negative", ())]
    if "negative" in cells:
        cells["negative"] = [
            list(compress(texts, kept)) or None for texts, kept in zip(cells["negative"], present, strict=True)
        ]
    blank = {role: np.array(list(map(is_blank, column)), dtype=bool) for role, column in cells.items()}
    has_negative = ~blank.pop("negative", np.zeros(len(inside), dtype=bool))
    has_texts = ~np.any([*blank.values()], axis=0)
    complete, without_negative = has_texts & has_negative, int((inside & has_texts & ~has_negative).sum())
    scores = unfiltered.scores
    labeled = unfiltered.labels.present if unfiltered.labels else np.ones(len(inside), dtype=bool)
    scored = np.array([numbers is not None for numbers in scores or [[]] * len(inside)], dtype=bool)
    placed = np.ones(len(inside), dtype=bool)
    if unfiltered.vectors is not None:
        placed = np.array([vector is not None for vector in unfiltered.vectors], dtype=bool)
    dropped = {
        "empty list": int(rows.sum()) - len(np.unique(unfiltered.parent[inside])),
        "empty text": int((inside & ~complete).sum()),
        "null label": int((inside & complete & ~labeled).sum()),
        "no scores": int((inside & complete & ~scored).sum()),
        "no embedding": int((inside & complete & ~placed).sum()),
    }
    dropped = {reason: count for reason, count in dropped.items() if count}
    kept = np.flatnonzero(inside & complete & labeled & scored & placed)
    if not len(kept) and not allow_none:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
        raise DataError(f"no example can be made from {int(rows.sum())} rows ({reasons}): check `columns`")
    texts = cells
    if len(kept) < len(inside):
        texts = {role: [column[i] for i in kept.tolist()] for role, column in cells.items()}
    if "negative" in texts:
        negatives = texts.pop("negative")
        for i, role in enumerate(negative_roles(max(map(len, negatives), default=1))):
            texts[role] = [row[i] if i < len(row) else None for row in negatives]
    parents, labels = unfiltered.parent[kept], unfiltered.labels
    return Examples(
        unfiltered.format,
        texts,
        None if labels is None else labels.values[kept],
        "none" if labels is None else labels.kind,
        None if labels is None else labels.names,
        unfiltered.table.row[parents],
        dropped,
        without_negative,
        _writers(unfiltered.table, parents),
        None if scores is None else pad_scores([_of_present(scores[i], present[i]) for i in kept.tolist()]),
        stack_vectors(unfiltered.vectors, kept),
        {name: [column[i] for i in kept.tolist()] for name, column in unfiltered.kept.items()},
    )


def _of_present(scores: list[float] | None, present: list[bool]) -> list[float]:
    """The scores of the positive and of the negatives that are no blank text."""
    return list(compress(scores or [], [True, *present]))


def _writers(table: Table, parents: np.ndarray) -> list[str] | None:
    cells = table.columns.get(GENERATED_BY)
    return None if cells is None else [str(cells[parent] or "") for parent in parents.tolist()]


def is_blank(cell: str | list[str] | None) -> bool:
    return not cell or (isinstance(cell, str) and cell.isspace())


def examples_in(table: Table, source: TrainingData) -> Examples:
    table = matching(table, source.where)
    unfiltered = _build_unfiltered(table, source, source.format)
    if unfiltered.labels and unfiltered.labels.numbered:
        mapping = to_hint({name: number for number, name in enumerate(unfiltered.labels.names or [])})
        raise DataError(
            f"the labels are names, which a stream can't number before it has read all rows: list all of them, as in "
            f"`label_map: {mapping}`"
        )
    return _drop_incomplete(unfiltered, np.ones(len(table), dtype=bool), allow_none=True)
