"""When two texts say the same: they differ only in case, white space, punctuation or Unicode form."""

import unicodedata
from typing import Any


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
    folded = text.casefold()
    if not text.isascii():  # of text in ASCII, the form is one
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_REPLACEMENTS).split()) or text
