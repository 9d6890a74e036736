"""Split expressions: `train`, `train[:50%]`, `train[100:200]`, `train[-10%:]`, `train+validation`.

They mean what they mean in `datasets` (https://huggingface.co/docs/datasets/loading#slice-splits): percentages are
rounded to the nearest row, and a bound outside the split is moved to its end.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from stfit.data.source import Unnamed
from stfit.errors import DataError, Problem, RecipeError, closest_hint

NUMBER = r"-?\d+%?"
PART = re.compile(rf"(?P<name>[\w.-]+)(?:\[(?P<start>{NUMBER})?:(?P<stop>{NUMBER})?\])?")


class Preview(str):
    """A split of which only the first rows are needed: a file on the Hub is then not downloaded whole."""


class SplitPart(NamedTuple):
    """One term of a split expression. `start` and `stop` as written: `100`, `-10%`, or None for an open end."""

    name: str
    start: str | None
    stop: str | None


def parse_split(text: str) -> list[SplitPart]:
    return [_parse_part(term.strip(), text) for term in text.split("+")]


def require_split(name: str, splits: Iterable[str], dataset: str) -> None:
    known = sorted(splits)
    if name not in known:
        hint = f"{closest_hint(name, known)} its splits are {', '.join(known)}".lstrip()
        raise DataError(Problem(f"{dataset} has no split `{name}`: {hint}", DataError.code, key="split"))


def split_in(split: str, only: str | None, dataset: str) -> str:
    """The split to read; `only`: that of a dataset which has no other, and which the recipe need not name.

    Raises DataError for another name than this one or `train`.
    """
    if only is None:
        return split
    if isinstance(split, Unnamed):
        return only
    for part in parse_split(split):
        if part.name not in (only, "train"):
            hint = f"its only split is `{only}`, which needs no name: remove `split`"
            raise DataError(Problem(f"{dataset} has no split `{part.name}`: {hint}", DataError.code, key="split"))
    return re.sub(r"\btrain\b", only, split)


def is_whole(text: str) -> bool:
    return parse_split(text) == [SplitPart(text, None, None)]


def is_of_whole(text: str) -> bool:
    return is_whole(text) or (isinstance(text, Preview) and len(parse_split(text)) == 1)


def _parse_part(term: str, whole: str) -> SplitPart:
    match = PART.fullmatch(term)
    if match is None:
        raise RecipeError(
            f"can't read the split `{whole}`: write `train`, `train[:50%]`, `train[100:200]`, or terms joined by `+`"
        )
    part = SplitPart(*match.group("name", "start", "stop"))
    bounds = [bound for bound in (part.start, part.stop) if bound]
    if len({bound.endswith("%") for bound in bounds}) == 2:
        raise RecipeError(f"the split `{whole}` mixes rows and percentages in one slice: use one of the two")
    if any(bound.endswith("%") and abs(int(bound[:-1])) > 100 for bound in bounds):
        raise RecipeError(f"the split `{whole}` takes more than 100%")
    return part


def slice_rows(part: SplitPart, rows: int) -> slice:
    """The slice of a split of `rows` rows that a term means, with bounds between 0 and `rows`."""

    def row_at(bound: str | None) -> int | None:
        if bound is None:
            return None
        return round(int(bound[:-1]) * rows / 100) if bound.endswith("%") else int(bound)

    return slice(*slice(row_at(part.start), row_at(part.stop)).indices(rows)[:2])


def rows_needed(parts: list[SplitPart], name: str) -> int | None:
    """Number of the first rows of a split that the terms need; None if that depends on its length."""
    stops = [part.stop if (part.start or "0").isdigit() else None for part in parts if part.name == name]
    known = [int(stop) for stop in stops if stop and stop.isdigit()]
    return max(known) if len(known) == len(stops) else None
