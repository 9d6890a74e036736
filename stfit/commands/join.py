"""`stfit encode --join FOLDER`: the parts of a folder as one file."""

from pathlib import Path
from typing import Any

from stfit.data.embeddings.parts import complete_parts, holds_parts, read_parts
from stfit.data.embeddings.writers import check_columns, check_suffix, write_output
from stfit.errors import DataError
from stfit.io.outputs import require_output
from stfit.progress import task


def join_parts(folder: Path, output: Path) -> dict[str, Any]:
    """The embeddings in the order of the texts. Raises DataError if parts are missing, and names them."""
    check_suffix(output)
    if not holds_parts(folder):
        raise DataError(f"{folder}: holds no parts, which `stfit encode --part` writes")
    parts = complete_parts(folder)
    check_columns(parts[0].made["columns"], output)
    require_output(output, [folder], is_folder=not output.suffix)
    rows = sum(stored.rows for stored in parts)
    with task(f"joining {len(parts)} parts"):
        write_output(read_parts(parts), output, rows)
    return {"output": str(output), "rows": rows, "embedding_dim": parts[0].made["dimensions"], "parts": len(parts)}
