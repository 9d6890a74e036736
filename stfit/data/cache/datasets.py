"""Save a dataset in memory to a folder that a recipe can name."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from stfit.data.cache.folder import cache_folder, mark_used, trim_cache
from stfit.errors import ResourceError
from stfit.io.atomic import atomic_cache_entry

if TYPE_CHECKING:
    from datasets import DatasetDict

ROWS_AT_ONCE = 10_000


def cache_dataset(splits: DatasetDict) -> Path:
    """Save the splits once, to a folder named after their fingerprint. Raises ResourceError if that fails."""
    fingerprint = _fingerprint(splits)
    folder = cache_folder("datasets") / f"from-python-{fingerprint[:16]}"
    if _holds(folder, fingerprint):
        mark_used(folder)
        return folder
    try:
        if folder.is_dir():
            shutil.rmtree(folder)
        with atomic_cache_entry(folder) as temporary:
            splits.save_to_disk(str(temporary))
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            raise ResourceError(f"{folder}: the dataset can't be saved: {error}") from error
    trim_cache(folder)
    return folder


def _holds(folder: Path, fingerprint: str) -> bool:
    import datasets

    try:
        return _fingerprint(datasets.load_from_disk(str(folder))) == fingerprint
    except (OSError, ValueError, KeyError):  # missing or damaged
        return False


def _fingerprint(splits: DatasetDict) -> str:
    digest = sha256()
    for name, dataset in splits.items():
        digest.update(f"{name} {dataset.features} {len(dataset)}".encode())
        for rows in dataset.with_format("arrow").iter(ROWS_AT_ONCE):
            for batch in rows.combine_chunks().to_batches():
                digest.update(batch.serialize())
    return digest.hexdigest()
