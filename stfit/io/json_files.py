import json
from hashlib import sha256
from pathlib import Path
from types import UnionType
from typing import Any

Types = dict[str, type | UnionType]
"""Key of a JSON object -> the type of its value."""


def load_json(path: Path) -> Any:
    """Parse a file, with a byte order mark or not.

    Raises OSError, or ValueError for text that is not JSON, not UTF-8 or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


DIGEST = "sha256"
"""Key of a JSON object that holds the digest of its other keys."""


def load_json_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if the file is missing, holds something else, or does not fit its digest, if it has one."""
    try:
        content = load_json(path)
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    digest = content.pop(DIGEST, None)
    return content if digest in (None, _digest_of(content)) else None


def find_misfit(content: dict[str, Any], types: Types) -> str | None:
    """The first key that is missing or holds another type; a type `... | None` lets it be missing."""
    return next((key for key, kind in types.items() if not isinstance(content.get(key), kind)), None)


def seal_json(content: dict[str, Any], indent: int | None = 2) -> str:
    """The text of a file for `load_json_object`, which notices every change of a value."""
    return json.dumps({**content, DIGEST: _digest_of(content)}, indent=indent) + "\n"


def _digest_of(content: dict[str, Any]) -> str:
    # As it is read again: keys are texts then, and tuples lists.
    return sha256(json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
