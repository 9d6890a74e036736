"""Results of blocks of rows on disk, each whole or absent, with the digest of its inputs."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stfit.io.atomic import atomic_write, wrap_os_errors
from stfit.io.json_files import load_json


@dataclass(frozen=True)
class SavedBlocks:
    folder: Path

    def _path(self, number: int) -> Path:
        return self.folder / f"block-{number:05d}.json"

    def read(self, number: int, digest: str) -> list[Any] | None:
        """None if the block is missing, damaged, or made from other inputs."""
        try:
            content = load_json(self._path(number))
            return list(content["rows"]) if content["digest"] == digest else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, number: int, digest: str, rows: Sequence[Any]) -> None:
        with wrap_os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._path(number), json.dumps({"digest": digest, "rows": rows}))

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
