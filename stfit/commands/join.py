"""`stfit encode --join FOLDER`: the parts of a folder as one file."""

from pathlib import Path
from typing import Any

from stfit.data.embeddings.parts import complete_parts, holds_parts, read_parts
from stfit.data.embeddings.writers import check_columns, check_suffix, write_output
from stfit.data.object_store import given_path, local_copy, local_output, shown
from stfit.errors import DataError
from stfit.io.outputs import require_output
from stfit.progress import task


def join_parts(folder: Path, output: Path) -> dict[str, Any]:
    """The embeddings in the order of the texts. Raises DataError if parts are missing, and names them."""
    check_suffix(output)
    name, folder = shown(folder), local_copy(given_path(folder))
    if not holds_parts(folder):
        raise DataError(f"{name}: holds no parts, which `stfit encode --part` writes")
    parts = complete_parts(folder)
    check_columns(parts[0].made["columns"], output)
    rows = sum(stored.rows for stored in parts)
    with local_output(output) as target:
        require_output(target, [folder], is_folder=not output.suffix)
        with task(f"joining {len(parts)} parts"):
            write_output(read_parts(parts), target, rows)
    return {"output": shown(output), "rows": rows, "embedding_dim": parts[0].made["dimensions"], "parts": len(parts)}
