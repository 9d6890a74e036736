"""What Python code gives for texts: checked once, so that a mistake is named and not embedded."""

from collections.abc import Sequence
from types import UnionType
from typing import Any

from stfit.errors import DataError
from stfit.io.display import shorten
from stfit.io.unicode import is_unicode


def list_of_texts(given: Any) -> list[str]:
    """The strings in a list, a tuple, an array of one dimension, a Series or a column of a dataset."""
    texts = _listed(given)
    wrong = next((position for position, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise TypeError(f"encode takes strings, but item {wrong} is {describe(texts[wrong])}")
    half = next((position for position, text in enumerate(texts) if not is_unicode(text)), None)
    if half is not None:
        require_unicode(texts[half], f"item {half}")
    return texts


def _listed(given: Any) -> list[Any]:
    for method in ("to_pylist", "tolist"):  # pyarrow; numpy and pandas
        if hasattr(given, method) and getattr(given, "ndim", 1) == 1:
            return list(getattr(given, method)())
    if hasattr(given, "dtype") and hasattr(given, "to_list"):  # a Series of polars
        return list(given.to_list())
    if isinstance(given, Sequence) and not isinstance(given, bytes | bytearray | memoryview):
        return list(given)
    raise TypeError(f"encode takes a string or a list of strings, not {describe(given)}")


def describe(value: Any) -> str:
    """A value in an error message: `None`, or its type and what it holds."""
    name = type(value).__name__
    article = "an" if name[0] in "aeiouAEIOU" else "a"
    return "None" if value is None else f"{article} {name}: {shorten(repr(value), 60)}"


def require_type(name: str, value: Any, kind: type | UnionType) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = getattr(kind, "__name__", str(kind))
        raise TypeError(f"{name} must be {expected}, not {describe(value)}")


def require_unicode(text: str, name: str) -> None:
    """Raise DataError for half of a surrogate pair, which is no character, and which no tokenizer reads."""
    if not is_unicode(text):
        raise DataError(f"{name} holds half of a surrogate pair, which is no character: {shorten(text, 60)!a}")
