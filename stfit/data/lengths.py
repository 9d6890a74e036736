"""How long texts are in tokens, and how many are cut: by the base's tokenizer alone, without transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from stfit.data.token_cache import Tokenize
from stfit.errors import ModelError, Problem

QUANTILES = (0.5, 0.9, 0.99, 1.0)

WORTH_SAYING = 0.01
"""Share of cut texts from which on it is a warning."""


def whole_texts(path: Path) -> Tokenize:
    """The tokenizer of a tokenizer.json, which cuts nothing. Raises ModelError where the file is damaged."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises a bare Exception
        raise ModelError(f"{path}: its tokenizer can't be loaded: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [
        np.array(encoding.ids, dtype=np.int32) for encoding in tokenizer.encode_batch_fast(list(texts))
    ]


def words(texts: Sequence[str]) -> list[np.ndarray]:
    """Words instead of tokens, plus two for the special ones: an estimate where no tokenizer is there yet."""
    return [np.zeros(len(text.split()) + 2, dtype=np.int32) for text in texts]


def quantiles(lengths: np.ndarray) -> dict[str, int]:
    """`p50`, `p90`, `p99` and `max`, in tokens."""
    values = np.quantile(lengths, QUANTILES, method="higher").tolist()
    return dict(zip(("p50", "p90", "p99", "max"), map(int, values), strict=True))


def cut_texts(lengths: np.ndarray, limit: int) -> list[Problem]:
    """What stands after `max_seq_length` tokens is never seen, and a text that differs only there looks the same."""
    filled = float((lengths >= limit).mean())
    if filled < WORTH_SAYING:
        return []
    return [Problem(f"{filled:.0%} of the texts fill max_seq_length {limit}; what goes beyond is cut", "cut-texts")]
