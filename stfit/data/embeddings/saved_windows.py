"""Windows of embeddings on disk, which survive an interruption until an output is made from them."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from stfit.data.embeddings.writers import EmbeddingRows
from stfit.errors import RecipeError, ResourceError
from stfit.io.atomic import atomic_cache_entry, wrap_os_errors
from stfit.io.hashing import hash_buffers

TENSORS = ("values", "names")
"""Of a window."""
WINDOW = re.compile(r"window-\d{5,}\.safetensors(\.\d+(@.*)?\.tmp)?|\.output\.lock")
"""Name of what a folder of windows holds."""


@dataclass(frozen=True)
class SavedWindows:
    """A folder of windows, numbered from 0, each complete or absent, with the digest of its inputs.

    They are safetensors files because pyarrow imports pandas, which delays the first window.
    """

    folder: Path

    def path(self, number: int) -> Path:
        return self.folder / f"window-{number:05d}.safetensors"

    def require_own(self) -> None:
        """Raises RecipeError if the folder holds anything else, which would be deleted with the windows."""
        foreign = [path.name for path in sorted(self.folder.glob("*")) if not WINDOW.fullmatch(path.name)]
        if foreign:
            raise RecipeError(
                f"{self.folder}: holds {foreign[0]}, and this command keeps its windows there: move that file, or "
                "choose another output"
            )

    def delete(self) -> None:
        """The windows and their lock, and the folder if nothing else is in it."""
        for path in self.folder.glob("*"):
            if WINDOW.fullmatch(path.name):
                path.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def any(self) -> bool:
        return any(self.folder.glob("window-*"))

    def require_space(self, needed: int) -> None:
        """Raises ResourceError if the windows and the output made of them, `needed` bytes, do not fit on the disk."""
        free = shutil.disk_usage(self.folder).free + sum(path.stat().st_size for path in self.folder.glob("window-*"))
        if needed > free:
            raise ResourceError(
                f"{self.folder}: the windows and the output made of them need {needed / 2**20:.1f} MiB, but only "
                f"{free / 2**20:.1f} MiB are free: choose an output on another disk, or a smaller --precision or "
                "--truncate-dim"
            )

    def has(self, number: int, digest: str) -> bool:
        """Whether the window was made from these inputs, and its values are those that were written."""
        try:
            with safetensors.safe_open(self.path(number), "numpy") as file:
                metadata = file.metadata() or {}
                return metadata.get("digest") == digest and metadata.get("values") == _hash_tensors(
                    {name: file.get_tensor(name) for name in TENSORS}
                )
        except (OSError, safetensors.SafetensorError):  # missing or damaged
            return False

    def write(self, number: int, digest: str, rows: EmbeddingRows) -> None:
        names = np.frombuffer(json.dumps([rows.ids, rows.columns], default=str).encode(), dtype=np.uint8)
        tensors = {"values": np.ascontiguousarray(rows.values), "names": names}
        path = self.path(number)
        with wrap_os_errors(path), atomic_cache_entry(path) as temporary:
            safetensors.numpy.save_file(tensors, temporary, {"digest": digest, "values": _hash_tensors(tensors)})

    def read(self, number: int) -> EmbeddingRows:
        tensors = safetensors.numpy.load_file(self.path(number))
        ids, columns = json.loads(tensors["names"].tobytes())
        return EmbeddingRows(ids, columns, tensors["values"])

    def read_all(self, count: int) -> Iterator[EmbeddingRows]:
        return map(self.read, range(count))


def _hash_tensors(tensors: dict[str, np.ndarray]) -> str:
    return hash_buffers(*(part for name in TENSORS for part in (tensors[name].dtype.str.encode(), tensors[name])))
