"""Which generated pairs are left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stfit.data.checks.leakage import NO_TEXT, are_among, numbers_of
from stfit.data.mapping.plain_text import WORD, plain
from stfit.errors import RecipeError
from stfit.lazy import lazy
from stfit.options import GenerationOptions

if TYPE_CHECKING:
    import py3langid
else:
    py3langid = lazy("py3langid")

Row = dict[str, Any]
MIN_WORDS_OF_LANGUAGE = 4
"""The language of a shorter text is a guess."""

LENGTH, COPY, LANGUAGE, EVALUATED, DUPLICATE, NEAR, LOST = (
    "too short or too long",
    "copied from its passage",
    "in another language",
    "text of an evaluator",
    "anchor of an earlier row",
    "nearly an earlier row",
    "passage not found by the retriever",
)
"""Reasons, in the order in which they are looked for."""


@dataclass
class Filters:
    """Looks at each row for itself, and at whether its anchor was there before."""

    options: GenerationOptions
    evaluated: np.ndarray
    """Numbers of the texts of evaluators (see `numbers_of`)."""
    writers: frozenset[str] = frozenset()
    """What rows say that a model wrote."""
    _known: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.options.language is not None:
            _require_language(self.options.language)

    def reasons(self, rows: Sequence[Row]) -> list[str | None]:
        """Why each row is left out; None if it is kept."""
        anchors, positives = ([row[role] for row in rows] for role in ("anchor", "positive"))
        number = numbers_of(anchors)
        is_evaluated = are_among(number, self.evaluated) | are_among(numbers_of(positives), self.evaluated)
        found: list[str | None] = []
        for row, own, evaluated in zip(rows, number.tolist(), is_evaluated.tolist(), strict=True):
            reason = self._reason(row) or (EVALUATED if evaluated else DUPLICATE if own in self._known else None)
            if reason is None and own != NO_TEXT:
                self._known.add(own)
            found.append(reason)
        return found

    def _reason(self, row: Row) -> str | None:
        anchor, positive, options = row["anchor"], row["positive"], self.options
        length, whole = len(WORD.findall(anchor)), len(WORD.findall(positive))
        if not options.words[0] <= length <= options.words[1] or whole < options.words[0]:
            return LENGTH
        if row["generated_by"] in self.writers and f" {plain(anchor)} " in f" {plain(positive)} ":
            return COPY
        if options.language is not None and not all(map(self._is_in_language, (anchor, positive))):
            return LANGUAGE
        return None

    def _is_in_language(self, text: str) -> bool:
        return len(WORD.findall(text)) < MIN_WORDS_OF_LANGUAGE or _language_of(text) == self.options.language


def _require_language(language: str) -> None:
    try:
        known = {name for name, _ in py3langid.rank("text")}
    except ImportError:
        raise RecipeError("--language needs py3langid: install the extra `language`") from None
    if language not in known:
        raise RecipeError(f"--language {language}: write one of {', '.join(sorted(known))}")


def _language_of(text: str) -> str:
    return str(py3langid.classify(text)[0])
