"""The folder of cached tokens, embeddings of teachers and datasets. It can be deleted at any time.

It is kept below STFIT_CACHE_GB: what was not used for the longest time goes first.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stfit.errors import RecipeError
from stfit.lazy import lazy

if TYPE_CHECKING:
    import huggingface_hub.constants as hub
else:
    hub = lazy("huggingface_hub.constants")

KINDS = ("tokens", "teachers", "datasets", "downloads", "imports")
DEFAULT_GB = 10.0


def cache_folder(kind: str) -> Path:
    return Path(hub.HF_ASSETS_CACHE) / "stfit" / kind


def mark_used(entry: Path) -> None:
    with suppress(OSError):  # a cache that may only be read
        os.utime(entry)


def trim_cache(kept: Path | None = None) -> None:
    """Delete the least recently used entries above the limit, but not `kept`. Entries that are open stay readable."""
    sizes = {entry: _size_of(entry) for kind in KINDS for entry in cache_folder(kind).glob("*")}
    excess = sum(sizes.values()) - limit_bytes()
    for entry in sorted(sizes, key=_last_used):
        if excess <= 0:
            return
        if entry != kept:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
            excess -= sizes[entry]


def limit_bytes() -> float:
    written = os.environ.get("STFIT_CACHE_GB", str(DEFAULT_GB))
    try:
        limit = float(written)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise RecipeError(f"STFIT_CACHE_GB is {written!r}: it must be a number of gigabytes, such as {DEFAULT_GB:g}")
    return limit * 1e9


def _size_of(entry: Path) -> int:
    with suppress(OSError):  # another process deletes too
        return sum(path.stat().st_size for path in (entry.rglob("*") if entry.is_dir() else [entry]))
    return 0


def _last_used(entry: Path) -> float:
    with suppress(OSError):
        return entry.stat().st_mtime
    return 0.0
