"""Embeddings by sentence-transformers, as a reference, and their difference from ours."""

from pathlib import Path

import numpy as np
import pytest


def st_encode(folder: Path, texts: list[str], **options) -> np.ndarray:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(
        texts, show_progress_bar=False, **options
    )


def largest_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative to max(1, norm)."""
    return float((np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1).clip(min=1)).max())
