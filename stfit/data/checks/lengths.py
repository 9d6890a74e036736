"""Lengths of texts in tokens, and how many texts are truncated."""

from collections.abc import Sequence

import numpy as np

from stfit.errors import DataError, Problem

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

MIN_CUT_SHARE = 0.01
MIN_UNKNOWN_SHARE, MAX_UNKNOWN_SHARE = 0.01, 0.5


def estimate_tokens(texts: Sequence[str]) -> list[np.ndarray]:
    """An estimate of token counts without a tokenizer: words, plus two special tokens."""
    return [np.zeros(len(text.split()) + 2, dtype=np.int32) for text in texts]


def quantiles(lengths: np.ndarray) -> dict[str, int]:
    return {name: int(np.quantile(lengths, share, method="higher")) for name, share in QUANTILES.items()}


def cut_texts(lengths: np.ndarray, limit: int | None) -> list[Problem]:
    """Tokens after `max_seq_length` are never seen: texts that differ only there get the same embedding."""
    filled = 0.0 if limit is None else float((lengths >= limit).mean())
    if filled < MIN_CUT_SHARE:
        return []
    return [Problem(f"{filled:.0%} of the texts reach max_seq_length {limit}; longer texts are truncated", "cut-texts")]


def empty_texts(lengths: np.ndarray) -> list[Problem]:
    """A text without a word of the base's vocabulary has the embedding zero. Raises DataError if none has one."""
    empty = int((lengths == 0).sum())
    message = f"{empty} of {len(lengths)} texts contain no word of the base's vocabulary: their embedding is zero"
    if empty and empty == len(lengths):
        raise DataError(Problem(f"{message}: choose vectors whose words are those of these texts", "unknown-words"))
    return [Problem(message, "unknown-words")] if empty else []


def unknown_tokens(ids: np.ndarray, unknown_id: int | None) -> list[Problem]:
    """All unknown tokens have one vector. Raises DataError if most are unknown: the base can't read the texts."""
    share = 0.0 if unknown_id is None or not len(ids) else float((ids == unknown_id).mean())
    message = f"{share:.0%} of the tokens are not in the base's vocabulary, so they all have the same vector"
    if share > MAX_UNKNOWN_SHARE:
        hint = ": choose a base whose tokenizer reads these texts, and whose tokenizer.json belongs to its weights"
        raise DataError(Problem(message + hint, "unknown-tokens"))
    return [Problem(message, "unknown-tokens")] if share > MIN_UNKNOWN_SHARE else []
