"""The list of the names that transformers defines: made once for each version, not at each start.

transformers reads its three thousand files twice to learn which names they define, which takes half a second.
"""

import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from stfit.data.cache.folder import cache_folder, mark_used
from stfit.io.json_files import write_json

MODELS = "models"
"""The folder of transformers that holds nearly all files."""

Names = dict[frozenset[str], dict[str, set[str]]]
"""Packages that are needed -> module -> names."""


def keep_index(import_utils: ModuleType) -> None:
    """Let `define_import_structure` of `transformers.utils.import_utils` look into the cache first."""
    define = import_utils.define_import_structure
    if hasattr(define, "uncached"):
        return

    def define_once(module_path: str | Path, prefix: str | None = None) -> Names:
        folder = Path(module_path)
        folder = folder if folder.is_dir() else folder.parent
        if folder.name != MODELS:
            names: Names = define(module_path, prefix)
            return names
        kept = _kept_at(folder)
        content = _read(kept) or _write(kept, define(str(folder), None))
        return {
            frozenset(packages): {
                f"{prefix}.{module}" if prefix else module: set(found) for module, found in of_packages.items()
            }
            for packages, of_packages in content
        }

    vars(define_once)["uncached"] = define
    vars(import_utils)["define_import_structure"] = define_once


def _kept_at(folder: Path) -> Path:
    """An installation of another version, or in another place, has another file."""
    state = [str(folder), os.stat(folder).st_mtime_ns, os.stat(folder.parent / "__init__.py").st_mtime_ns]
    return cache_folder("imports") / f"{sha256(json.dumps(state).encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Any:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        mark_used(path)
        return content


def _write(path: Path, names: Names) -> Any:
    content = [
        [sorted(packages), {module: sorted(found) for module, found in of_packages.items()}]
        for packages, of_packages in names.items()
    ]
    with suppress(OSError):  # a cache that may only be read
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    return content
