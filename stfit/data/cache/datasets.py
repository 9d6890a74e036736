"""A dataset in memory -> a folder of the same rows, which a recipe can name."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from stfit.data.cache.tokens import cache_folder
from stfit.errors import ResourceError

if TYPE_CHECKING:
    from datasets import DatasetDict

ROWS_AT_ONCE = 10_000


def cache_dataset(splits: DatasetDict) -> Path:
    """Write the splits where `datasets` finds them again, once: the folder, which reports show, is named after them.

    Raises ResourceError where it can't be written.
    """
    folder = cache_folder("datasets") / f"from-python-{_fingerprint(splits)[:16]}"
    if folder.is_dir():
        return folder
    scratch = folder.with_suffix(f".{os.getpid()}.tmp")
    try:
        splits.save_to_disk(str(scratch))
        scratch.rename(folder)
    except OSError as error:
        if folder.is_dir():  # another process was faster
            return folder
        raise ResourceError(f"{folder}: the dataset can't be kept there: {error}") from error
    return folder


def _fingerprint(splits: DatasetDict) -> str:
    """sha256 of names, features and rows of the splits, however they are laid out in memory."""
    digest = sha256()
    for name, dataset in splits.items():
        digest.update(f"{name} {dataset.features} {len(dataset)}".encode())
        for rows in dataset.with_format("arrow").iter(ROWS_AT_ONCE):
            for batch in rows.combine_chunks().to_batches():
                digest.update(batch.serialize())
    return digest.hexdigest()
