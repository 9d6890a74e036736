"""How much two texts have in common, estimated by MinHash (Broder, 1997, https://doi.org/10.1109/SEQUEN.1997.666900).

A text is the set of its words and pairs of words. Array names: t = texts, s = shingles (words and pairs of words) of
all texts, h = hash functions, b = bands of hash functions.
"""

from __future__ import annotations

from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np

from stfit.data.mapping.plain_text import WORD, plain
from stfit.lazy import lazy

if TYPE_CHECKING:
    from pandas import util
else:
    util = lazy("pandas.util")

MIN_SHARED = 0.7
"""Share of words and pairs of words (Jaccard index) from which on two texts are near-duplicates."""
HASHES, BANDS = 64, 16
MULTIPLIERS = np.random.default_rng(0).integers(2**63, size=HASHES + 1, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
"""Odd numbers: multiplied by each of them, 64-bit hashes are in another order."""
COMPARED = 20_000
"""Texts, or pairs of texts, at once."""


def words(text: str) -> list[str]:
    text = plain(text)
    return text.split() if text.isascii() else WORD.findall(text) or [text]


def minima(texts: list[str]) -> np.ndarray:
    """The smallest value of each hash function over the shingles of each text, [t, h]."""
    words_t = list(map(words, texts))
    length_t = np.array(list(map(len, words_t)))
    start_t = np.cumsum(length_t) - length_t
    word_s = util.hash_array(
        np.array(list(chain.from_iterable(words_t)), dtype=object)
    )  # `hash` differs in each process
    pair_s = word_s * MULTIPLIERS[0] + np.roll(word_s, -1)
    pair_s[start_t + length_t - 1] = word_s[start_t + length_t - 1]  # the last word of a text starts no pair
    minima_th = np.empty((len(texts), HASHES), dtype=np.uint32)
    for number, multiplier in enumerate(MULTIPLIERS[1:]):
        smaller_s = np.minimum(word_s * multiplier, pair_s * multiplier)
        minima_th[:, number] = np.minimum.reduceat(smaller_s, start_t) >> np.uint64(32)
    return minima_th


def band_keys(minima_th: np.ndarray) -> np.ndarray:
    """A number for the rows of each band, [b, t]."""
    part_tbr = minima_th.reshape(len(minima_th), BANDS, -1).astype(np.uint64)
    return (part_tbr * MULTIPLIERS[1 : part_tbr.shape[2] + 1]).sum(axis=2, dtype=np.uint64).T


def jaccard(first: str, second: str) -> float:
    one, other = (set(words_of) | set(pairwise(words_of)) for words_of in (words(first), words(second)))
    return len(one & other) / len(one | other)


def repeats(columns_th: list[np.ndarray]) -> np.ndarray:
    """Whether a row nearly equals an earlier one in every column, [t]. The minima may be memory-mapped files.

    A row is compared with the first one and with the last one before it that share a band of the first column.
    """
    is_repeat_t = np.zeros(len(columns_th[0]), dtype=bool)
    blocks = (columns_th[0][start : start + COMPARED] for start in range(0, len(is_repeat_t), COMPARED))
    for keys_t in np.concatenate([np.empty((BANDS, 0), np.uint64), *map(band_keys, blocks)], axis=1):
        order_t = np.argsort(keys_t, kind="stable")
        first_t = np.searchsorted(keys_t[order_t], keys_t[order_t])
        later = np.flatnonzero(first_t != np.arange(len(order_t)))
        for earlier in (first_t[later], later - 1):
            for start in range(0, len(later), COMPARED):
                one, other = (order_t[place[start : start + COMPARED]] for place in (earlier, later))
                shared = np.min([(minima_th[one] == minima_th[other]).mean(axis=1) for minima_th in columns_th], axis=0)
                is_repeat_t[other[shared >= MIN_SHARED]] = True
    return is_repeat_t
