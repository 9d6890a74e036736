"""Text that is none: half of a surrogate pair, as in a cut emoji, can't be encoded, and no tokenizer reads it."""

from pathlib import Path

from stfit.errors import RecipeError


def is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_text(path: Path) -> None:
    """Raises RecipeError for a path that YAML, JSON and safetensors can't hold: a run would fail at its end."""
    full = str(path.absolute())
    if "\0" in full or not is_unicode(full):
        raise RecipeError(f"{full!a}: a path must be UTF-8 text: rename the part with other bytes in it")
