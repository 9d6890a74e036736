"""The texts of one column of a dataset, with their ids."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from stfit.data.mapping.cells import without_point
from stfit.data.mapping.load_examples import cell_reader, text_problems
from stfit.data.mapping.selectors import Selector, expand, parse_selector, select
from stfit.data.part import Part, rows_counted_from
from stfit.data.reading.beir import is_beir_folder, is_document
from stfit.data.reading.load_table import open_blocks
from stfit.data.source import ReadOptions, Source
from stfit.data.table import Table, name_rows
from stfit.errors import DataError, Problem, RecipeError
from stfit.io.display import shorten
from stfit.io.unicode import is_unicode

log = logging.getLogger("stfit")


class TextColumns(NamedTuple):
    texts: str
    ids: str | None
    """None: ids are the numbers of the texts."""


@dataclass(frozen=True)
class Texts:
    ids: list[Any]
    texts: list[str]
    row: int
    kept: list[dict[str, Any]]
    """For each text, other cells of its row."""
    columns: TextColumns | None
    """None if there is no row."""

    def __len__(self) -> int:
        return len(self.texts)


def source_of_texts(dataset: str, split: str | None, read: ReadOptions | None = None) -> Source:
    """Without a split: the corpus of a BEIR folder, else `train`."""
    default = "corpus" if is_beir_folder(Path(dataset)) else "train"
    return Source(dataset=dataset, split=split or default, read=read or ReadOptions())


def stream_texts(
    source: Source,
    column: str | None,
    id_column: str | None,
    keep: Sequence[str] = (),
    keep_if_there: Sequence[str] = (),
    part: Part | None = None,
) -> Iterator[Texts]:
    """Every text that the selector `column` takes, in order; its id is what `id_column` selects, or its number from 0.

    Of a part, numbers start with 0 as well.

    The default of `column` is `text`, or the only column that holds text; of the rows of a BEIR corpus, title and text,
    with the id `_id`. Raises RecipeError or DataError.
    """
    selector: Selector | None = None
    kind: type | None = None
    count = 0
    with rows_counted_from(part):
        for table in open_blocks(source, column is not None, part)():
            if selector is None:
                selector = _choose_selector(table, column)
                id_column = id_column or ("_id" if column is None and is_document([*table.columns]) else None)
                if column is None and selector.text not in ("text", *table.columns):
                    log.info("%s: texts: %s, ids: %s", table.origin, selector.text, id_column or "numbers from 0")
            (found,), parents = expand(table, [selector], None)
            cells = list(map(cell_reader(source.read), found))
            rows = table.row[parents]
            problems = text_problems({"text": cells}, rows, {"text": [selector]})
            if missing := [row for cell, row in zip(cells, rows.tolist(), strict=True) if cell is None]:
                message = f"`{selector.text}` has no text in {name_rows(missing)}"
                problems.append(Problem(message, "no-text", table.origin, row=missing[0]))
            if problems:
                raise DataError([replace(problem, file=table.origin) for problem in problems])
            names = [*keep, *(name for name in keep_if_there if name in table.columns)]
            kept = [select(table, name) for name in names]
            numbers = list(range(count, count + len(cells)))
            own_ids = list(map(without_point, select(table, id_column))) if id_column else []
            ids = [own_ids[parent] for parent in parents] if id_column else numbers
            kind = kind or (type(ids[0]) if ids else None)
            _require_ids(ids, kind, rows.tolist(), f"`{id_column}`", table.origin)
            count += len(cells)
            others = [dict(zip(names, cells_of_row, strict=True)) for cells_of_row in zip(*kept, strict=True)]
            kept_of_text = [others[parent] if names else {} for parent in parents]
            yield Texts(ids, cells, int(table.row[-1]), kept_of_text, TextColumns(selector.text, id_column))


def _require_ids(ids: list[Any], kind: type | None, rows: list[int], column: str, origin: str) -> None:
    """Raises DataError for an id that no output holds, or that is of another kind than the first one."""
    for id, row in zip(ids, rows, strict=True):
        if type(id) is not kind or not _is_id(id):
            shown = shorten(ascii(id), 60)
            message = f"row {row} of {column} is {shown}: all ids must be texts, or all whole numbers of 64 bits"
            raise DataError(Problem(message, "unusable-id", origin, row=row))


def _is_id(id: Any) -> bool:
    return is_unicode(id) if isinstance(id, str) else type(id) is int and -(2**63) <= id < 2**63


def _choose_selector(table: Table, column: str | None) -> Selector:
    known = list(table.columns)
    if column is not None:
        selector = parse_selector(column, known)
        for name in selector.columns:
            table.cells(name)
        return selector
    if is_document(known):
        return parse_selector("{title} {text}" if "title" in known else "text", known)
    texts = [name for name, cells in table.columns.items() if any(isinstance(cell, str) for cell in cells)]
    texts = known if len(known) == 1 else texts
    if "text" in texts or len(texts) == 1:
        return Selector("text", "text") if "text" in texts else Selector(texts[0], texts[0])
    raise RecipeError(f"{table.origin}: set --column to the column that holds the texts: {', '.join(known)}")
