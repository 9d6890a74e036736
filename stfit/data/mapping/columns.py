"""Resolve the `columns` of a recipe: role -> selectors."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import SequenceMatcher, get_close_matches
from functools import partial
from itertools import chain
from typing import Any

from stfit.data.mapping.selectors import Selector, parse_selector
from stfit.data.source import ROLES
from stfit.data.table import SHOWN_ROWS, Table, delimiter_hint
from stfit.errors import DataError, Problem, RecipeError, at_key, did_you_mean
from stfit.io.yaml_text import to_hint


def check_roles(columns: Mapping[str, str | list[str]], format: str) -> None:
    """Raises RecipeError for a role that the format does not have, or a list where one selector is needed."""
    roles = roles_in_format(format, columns)
    problems = []
    for role, written in columns.items():
        if role not in roles:
            message = f"is not a role of format {format}: {did_you_mean(role, roles) or ', '.join(roles)}"
            problems.append(Problem(f"`columns: {role}` {message}", "unknown-role", key=f"columns.{role}"))
        elif isinstance(written, list) and (role not in ("text", "negative") or not written):
            message = "takes one selector; only `text` and `negative` take a list of them"
            problems.append(Problem(f"`columns: {role}` {message}", "list-of-selectors", key=f"columns.{role}"))
    if {"label", "scores"} <= {*columns} and format == "triplet":
        message = "`columns` has both label and scores: a loss learns from one of them"
        problems.append(Problem(message, "unknown-role", key="columns.scores"))
    if problems:
        raise RecipeError(problems)


def roles_in_format(format: str, columns: Collection[str] = ()) -> list[str]:
    """`columns`: those that are set; a triplet has a label or scores, and unlabeled texts an embedding, only then."""
    numbers = ["label"] if format.startswith("labeled") else []
    optional = ("label", "scores", "embedding") if format == "triplet" else ("embedding",)
    if not format.startswith("labeled"):
        numbers = [role for role in optional if role in columns]
    return [*ROLES[format], *numbers]


def resolve_columns(table: Table, columns: Mapping[str, str | list[str]], format: str) -> dict[str, list[Selector]]:
    """Role -> its selectors; by default, the column of the same name. Raises DataError for missing columns."""
    known = list(table.columns)
    roles = roles_in_format(format, columns)
    absent = [role for role in roles if role not in columns and role not in known]
    problems = []
    if absent:
        hint = delimiter_hint(known) or _tab_hint(table, roles) or _columns_hint(roles, columns, known)
        message = f"format {format} needs {', '.join(absent)}, but the columns are {', '.join(known)}: {hint}"
        problems.append(Problem(message, "missing-column", key="columns"))
    taken = [named for named in columns.values() if isinstance(named, str)]
    resolved = {}
    for role in roles:
        named, key = columns.get(role, role), f"columns.{role}"
        with at_key(key):
            selectors = [parse_selector(text, known) for text in ([named] if isinstance(named, str) else named)]
            _check_several(role, selectors)
        resolved[role] = selectors
        named_columns = chain.from_iterable(selector.columns for selector in selectors)
        missing = [] if role in absent else [column for column in named_columns if column not in known]
        problems += [replace(table.missing(column, taken), key=key) for column in missing]
    if problems:
        raise DataError(problems)
    return resolved


def _tab_hint(table: Table, roles: list[str]) -> str:
    """A hint if the lines of a text file look like columns."""
    if list(table.columns) != ["text"] or not any("\t" in str(cell) for cell in table.columns["text"][:SHOWN_ROWS]):
        return ""
    return f'if a tab separates its columns, set `read: {{delimiter: "\\t", header: {to_hint(roles)}}}`'


def _columns_hint(roles: list[str], columns: Mapping[str, str | list[str]], known: list[str]) -> str:
    """What to write: a column of almost the same name, such as `Anchor ` for `anchor`, or dots."""
    written: dict[str, Any] = {}
    for role in roles:
        free = [name for name in known if name not in [*columns.values(), *written.values()]]
        near = [name for name in free if _letters(name) == _letters(role)] or get_close_matches(
            role, free, n=len(known)
        )
        nearest = max(sorted(near, key=free.index), key=partial(_likeness, role), default="...")  # the first of equals
        written[role] = columns.get(role, role if role in known else nearest)
    return f"write `columns: {to_hint(written)}`"


def _likeness(role: str, name: str) -> float:
    return SequenceMatcher(None, _letters(name), _letters(role)).ratio()


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


def _check_several(role: str, selectors: list[Selector]) -> None:
    """Only negatives may have several texts in one example, and then no `[*]`."""
    sliced = [selector.text for selector in selectors if selector.has_slice]
    if sliced and role != "negative":
        raise RecipeError(f"`columns: {role}` takes one text: replace the slice in `{sliced[0]}` with `[0]` or `[*]`")
    if role == "negative" and len(selectors) > 1 and any(selector.tail is not None for selector in selectors):
        raise RecipeError(
            "`columns: negative` is a list, which means several negatives in one example: use slices instead of `[*]`"
        )
