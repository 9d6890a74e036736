import json
from pathlib import Path
from typing import Any


def load_json(path: Path) -> Any:
    """Parse a file. Raises OSError, or ValueError for text that is not JSON, not UTF-8 or nested too deeply."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def load_json_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if the file is missing, damaged, or holds something else."""
    try:
        content = load_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
