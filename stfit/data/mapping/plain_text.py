"""When two texts say the same: they differ only in case, white space, punctuation or Unicode form."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

PIECE = 2**20
"""Characters of a text that are folded at once: the list of its words takes ten times as much memory."""
WORD = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\\s\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+")
"""A word, or a character of a script without spaces between words."""
BOUNDARY = re.compile(" (?=[A-Za-z0-9])")
"""Where a text can be divided: a letter of ASCII does not combine with what stands before it."""


class _Replacements(dict[int, Any]):
    """Code point -> what stands in its place, looked up once: a space, nothing (None), or the character itself."""

    def __missing__(self, code: int) -> Any:
        category = unicodedata.category(chr(code))
        if category == "Cf" or 0xFE00 <= code <= 0xFE0F:  # invisible: soft hyphens, joiners, variation selectors
            self[code] = None
        else:  # Sk: accents and backticks that stand alone. Marks (M) belong to the letters of many scripts
            self[code] = " " if category[0] in "PZC" or category == "Sk" else code
        return self[code]


_REPLACEMENTS = _Replacements()


def plain(text: str) -> str:
    """The words of a text, separated by single spaces; the text itself if it has none."""
    return single_spaced(text, _fold) or text


def single_spaced(text: str, fold: Callable[[str], str]) -> str:
    """A text with single spaces after `fold`, which must not look further than a word."""
    return " ".join(filter(None, (" ".join(fold(piece).split()) for piece in _pieces(text))))


def _fold(text: str) -> str:
    folded = text.casefold()
    if not text.isascii():  # of text in ASCII, the form is one
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded.translate(_REPLACEMENTS)


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while match := BOUNDARY.search(text, start + PIECE):
        yield text[start : match.end()]
        start = match.end()
    yield text[start:]
