"""The selector language: which part of a row a role takes.

`title`, `set.query`, `set.pos[0]`, `set.pos[-1]`, `set.neg[:5]`, `set.neg[*]`: a column, then keys, indices and slices.
`{title} {text}`: a template, which joins such paths to one text. A column whose name is the whole selector wins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import chain, combinations, islice, product
from string import Formatter
from typing import Any, NamedTuple

import numpy as np

from stfit.data.mapping.cells import is_missing, without_point
from stfit.data.table import Table, name_rows
from stfit.errors import DataError, Problem, RecipeError, did_you_mean

Step = str | int | slice
WILDCARD = "[*]"
"""The step that makes one example of every element. No key can have this form."""

PATH = re.compile(r"(?P<column>[^.\[\]]+)(?P<steps>(?:\.[^.\[\]]+|\[[^\]]*\])*)")
STEP = re.compile(r"\.(?P<key>[^.\[\]]+)|\[(?P<index>-?\d+)\]|\[(?P<start>-?\d*):(?P<stop>-?\d*)\]|(?P<each>\[\*\])")
OTHER_SPELLINGS = {
    r"^\$\.?": "",
    r"""\[(['"])([^'"\].\[]+)\1\]""": r".\2",
    r"->>?|/": ".",
    r"\.(-?\d+)(?=[.\[]|$)": r"[\1]",
    r"\[\]|\.\*": "[*]",
}
"""Of a path in Python, jq, JSONPath, JSON pointers and SQL -> ours."""


class Selector(NamedTuple):
    """A path into a row. `path` leads to a text or a list; `tail` holds the steps after `[*]`, inside each element."""

    text: str
    column: str
    path: tuple[Step, ...] = ()
    tail: tuple[Step, ...] | None = None
    parts: tuple[tuple[str, Selector | None], ...] = ()
    """Of a template, which has no column of its own: a literal text, and the selector after it."""

    @property
    def columns(self) -> list[str]:
        return [part.column for _, part in self.parts if part] if self.parts else [self.column]

    @property
    def has_slice(self) -> bool:
        """Whether it puts several texts of a row into one example."""
        return any(isinstance(step, slice) for step in (*self.path, *(self.tail or ())))


def parse_selector(text: str, columns: Sequence[str] = ()) -> Selector:
    if text in columns:
        return Selector(text, text)
    if "{" in text:
        return _parse_template(text, columns)
    match = PATH.fullmatch(text)
    if match is None or STEP.sub("", match["steps"]):
        shapes = "`title`, `set.query`, `set.pos[0]`, `set.neg[:5]`, `set.neg[*]` or `{title} {text}`"
        meant = _meant_by(text)
        hint = f"write `{meant}`" if meant else f"write a column or a path, such as {shapes}"
        raise RecipeError(f"can't read the selector `{text}`: {hint}")
    if columns and match["column"] not in columns and (meant := _meant_by(text, columns)):
        raise DataError(Problem(f"there is no column `{match['column']}`: write `{meant}`", "missing-column"))
    steps = tuple(map(_parse_step, STEP.finditer(match["steps"])))
    if WILDCARD not in steps:
        return Selector(text, match["column"], steps)
    at = steps.index(WILDCARD)
    if WILDCARD in steps[at + 1 :]:
        raise RecipeError(f"`{text}` has two `[*]`, but a selector can have only one")
    return Selector(text, match["column"], steps[:at], steps[at + 1 :])


def _meant_by(text: str, columns: Sequence[str] = ()) -> str | None:
    """The selector for a path in the spelling of another tool, if it starts at one of the columns."""
    meant = text
    for pattern, replacement in OTHER_SPELLINGS.items():
        meant = re.sub(pattern, replacement, meant)
    match = PATH.fullmatch(meant)
    if match is None or meant == text or STEP.sub("", match["steps"]):
        return None
    return meant if not columns or match["column"] in columns else None


def _parse_template(text: str, columns: Sequence[str]) -> Selector:
    try:
        pieces = [(literal, name) for literal, name, spec, change in Formatter().parse(text) if not (spec or change)]
        if "".join(literal + f"{{{name}}}" * (name is not None) for literal, name in pieces) != text:
            raise ValueError("a name in braces is a column or a path")
    except ValueError as error:
        raise RecipeError(f"can't read the template `{text}`: {error}; write it like `{{title}} {{text}}`") from error
    parts = tuple((literal, None if name is None else parse_selector(name, columns)) for literal, name in pieces)
    several = [part.text for _, part in parts if part and (part.tail is not None or part.has_slice or part.parts)]
    if several:
        raise RecipeError(f"`{several[0]}` in the template `{text}` has several values, and a template takes one")
    return Selector(text, "", parts=parts)


def _parse_step(match: re.Match[str]) -> Step:
    if match["key"] or match["each"]:
        return match["key"] or WILDCARD
    if match["index"]:
        return int(match["index"])
    return slice(*(int(bound) if bound else None for bound in match.group("start", "stop")))


def select(table: Table, text: str) -> list[Any]:
    """One value per row. Raises DataError if the path does not fit a row."""
    selector = parse_selector(text, list(table.columns))
    if selector.tail is not None or selector.has_slice:
        raise RecipeError(f"`{text}` selects several values per row, but only one is allowed here")
    return _values(table, selector)


def select_or_raise(table: Table, text: str) -> list[Any]:
    """The same; also raises DataError, with the nearest name, if there is no such column."""
    for column in parse_selector(text, list(table.columns)).columns:
        if column not in table.columns:
            raise DataError(table.missing(column))
    return select(table, text)


def _values(table: Table, selector: Selector) -> list[Any]:
    """What the steps before a `[*]` lead to, for every row."""
    if not selector.parts:
        return _walk(table.cells(selector.column), table.row, selector.path, selector.column)
    texts = [(literal, part and _values(table, part)) for literal, part in selector.parts]
    return [
        _join([(literal, cells and cells[position]) for literal, cells in texts], selector.text, row)
        for position, row in enumerate(table.row.tolist())
    ]


def _join(pieces: list[tuple[str, Any]], template: str, row: int) -> str | None:
    """The text of a template, without space at its ends; None if all its cells are null."""
    for _, cell in pieces:
        if not (is_missing(cell) or isinstance(cell, str | bool | int | float | Decimal)):
            message = f"row {row}: the template `{template}` joins texts and numbers, and found {cell!r:.60}"
            raise DataError(Problem(message, "not-text", row=row))
    if all(is_missing(cell) and cell != "" for _, cell in pieces):
        return None
    cells = ["" if is_missing(cell) else str(without_point(cell)) for _, cell in pieces]
    return "".join(literal + cell for (literal, _), cell in zip(pieces, cells, strict=True)).strip()


def expand(table: Table, selectors: list[Selector], max_per_row: int | None) -> tuple[list[list[Any]], np.ndarray]:
    """Values of every selector for every example, and each example's position in the table.

    `[*]` of different lists combine as a cross product. Equal selectors with `[*]` take distinct elements of their
    list, in its order (i < j); different ones that share a list (`turns[*].question`, `turns[*].answer`) take the same
    element.
    """
    values = [_values(table, selector) for selector in selectors]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, selector in enumerate(selectors):
        if selector.tail is not None:
            _check_lists(values[index], table.row, selector.text.partition(WILDCARD)[0])
            groups.setdefault((selector.column, str(selector.path)), []).append(index)
    if not groups:
        return values, np.arange(len(table))

    parents: list[int] = []
    picks: list[tuple[int, ...]] = []
    members = [[selectors[index] for index in group] for group in groups.values()]
    lists = [values[group[0]] for group in groups.values()]
    for position in range(len(table)):
        lengths = (len(cells[position] or ()) for cells in lists)
        choices = map(_element_choices, members, lengths)
        combined = [tuple(chain(*choice)) for choice in islice(product(*choices), max_per_row)]
        parents += [position] * len(combined)
        picks += combined

    slots = {index: slot for slot, index in enumerate(chain(*groups.values()))}
    rows = table.row[parents]
    for index, selector in enumerate(selectors):
        if selector.tail is None:
            values[index] = [values[index][parent] for parent in parents]
        else:
            slot = slots[index]
            elements = [values[index][parent][pick[slot]] for parent, pick in zip(parents, picks, strict=True)]
            values[index] = _walk(elements, rows, selector.tail, selector.text.partition(WILDCARD)[0] + WILDCARD)
    return values, np.array(parents, dtype=np.int64)


def _element_choices(group: list[Selector], length: int) -> list[tuple[int, ...]]:
    different = len({selector.text for selector in group})
    if different == 1:
        return list(combinations(range(length), len(group)))
    if different == len(group):
        return [(element,) * len(group) for element in range(length)]
    raise RecipeError(
        f"{', '.join(f'`{selector.text}`' for selector in group)} use one list: they must be all equal or all different"
    )


def _walk(values: list[Any], rows: np.ndarray, steps: tuple[Step, ...], path: str) -> list[Any]:
    """Follow `steps` into every value; None if a list is too short or a key is missing. `rows` and `path` name it."""
    for position, step in enumerate(steps):
        if isinstance(step, str):
            _check_keys(values, rows, step, path)
            values = [None if value is None else value.get(step) for value in values]
            path += f".{step}"
            continue
        _check_lists(values, rows, path)
        if isinstance(step, slice):
            pieces = [(value or [])[step] for value in values]
            lengths = [len(piece) for piece in pieces]
            inside = iter(_walk(list(chain(*pieces)), np.repeat(rows, lengths), steps[position + 1 :], f"{path}[:]"))
            return [list(islice(inside, length)) for length in lengths]
        values = [value[step] if value is not None and -len(value) <= step < len(value) else None for value in values]
        path += f"[{step}]"
    return values


def _check_keys(values: list[Any], rows: np.ndarray, key: str, path: str) -> None:
    hint = f"; for an element of a list, write `{path}[{key}]`" if key.lstrip("-").isdecimal() else ""
    _check_kind(values, rows, dict, f"`{path}` is followed by `.{key}`, but is not a mapping", hint)
    keys = list(dict.fromkeys(name for value in values if value is not None for name in value))
    if keys and key not in keys:
        raise DataError(Problem(f"no row has `{path}.{key}`: {did_you_mean(key, keys)}", "missing-key"))


def _check_lists(values: list[Any], rows: np.ndarray, path: str) -> None:
    _check_kind(values, rows, list, f"`{path}` is used as a list, but is not a list")


def _check_kind(values: list[Any], rows: np.ndarray, kind: type, message: str, hint: str = "") -> None:
    wrong = [row for value, row in zip(values, rows.tolist(), strict=True) if not isinstance(value, (kind, type(None)))]
    if wrong:
        raise DataError(Problem(f"{message} in {name_rows(wrong)}{hint}", "wrong-kind", row=wrong[0]))
