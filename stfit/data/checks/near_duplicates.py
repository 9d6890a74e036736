"""Near-duplicates of evaluation texts among training texts: texts that share most of their words and pairs of words.

Candidates are found by MinHash (Broder, 1997, https://doi.org/10.1109/SEQUEN.1997.666900) with bands of rows, and the
best are compared exactly. Memory grows with the evaluation texts only: training texts pass by in blocks. Array names:
t = texts, s = shingles (words and pairs of words) of all texts, h = hash functions, b = bands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stfit.data.checks.leakage import Measured
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.plain_text import plain
from stfit.data.table import name_rows
from stfit.errors import Problem
from stfit.io.display import shorten
from stfit.lazy import lazy

if TYPE_CHECKING:
    from pandas import util
else:
    util = lazy("pandas.util")

MIN_SHARED = 0.7
"""Share of words and pairs of words (Jaccard index) from which on two texts are near-duplicates."""
MIN_ESTIMATE = 0.55
"""Lowest estimate of that share by MinHash, whose standard error is 0.06, that is worth an exact comparison."""
HASHES, BANDS = 64, 16
BLOCK = 20_000
"""Training texts compared at once."""
MAX_CANDIDATES = 4
"""Evaluation texts of one band that a training text is compared with: enough, as it has many bands."""
MULTIPLIERS = np.random.default_rng(0).integers(2**63, size=HASHES + 1, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
"""Odd numbers: multiplied by each of them, 64-bit hashes are in another order."""
WORD = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\\s\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+")
"""A word, or a character of a script without spaces between words."""


class _Index(NamedTuple):
    """The texts of all evaluators, to look up by band."""

    places: list[tuple[str, str, int]]
    """Evaluator, role and row of each text."""
    texts: list[str]
    minima_th: np.ndarray
    order_bt: np.ndarray
    """For each band, the texts in the order of their keys."""
    keys_bt: np.ndarray


def near_duplicates(training: Iterable[Examples], evaluations: list[Measured]) -> list[Problem]:
    """Evaluators with texts that nearly equal a training text. Equal texts do not count: see `shared_texts`."""
    index = _build_index(evaluations)
    nearest: dict[int, tuple[float, str]] = {}
    for texts in _blocks(training) if index.texts else ():
        for position, candidate in _candidates(index, _minima(texts)).items():
            found = _jaccard(index.texts[position], texts[candidate]), texts[candidate]
            nearest[position] = max(nearest.get(position, found), found)
    near = {
        position: text
        for position, (shared, text) in nearest.items()
        if shared >= MIN_SHARED and plain(text) != plain(index.texts[position])
    }
    return [problem for measured in evaluations for problem in _report(measured, index, near)]


def _report(measured: Measured, index: _Index, near: dict[int, str]) -> Iterator[Problem]:
    at = [position for position in sorted(near) if index.places[position][0] == measured.name]
    parts = []
    for role, column in measured.columns.items():
        rows = [index.places[position][2] for position in at if index.places[position][1] == role]
        parts += [f"{len(rows)} of {len(column.texts)} in {role} ({name_rows(rows)})"] if rows else []
    if at:
        texts = f"{shorten(index.texts[at[0]], 100)!r} and {shorten(near[at[0]], 100)!r}"
        message = f"evaluator `{measured.name}` nearly shares texts with training: {', '.join(parts)}, such as {texts}"
        yield Problem(message, "near-duplicates", measured.origin, row=index.places[at[0]][2])


def _build_index(evaluations: list[Measured]) -> _Index:
    places, texts = [], []
    for measured in evaluations:
        for role, column in measured.columns.items():
            kept = [(text, int(row)) for text, row in zip(column.texts, column.row, strict=True) if text]
            places += [(measured.name, role, row) for _, row in kept]
            texts += [text for text, _ in kept]
    blocks = (texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK))
    minima_th = np.concatenate([np.empty((0, HASHES), np.uint32), *map(_minima, blocks)])
    keys_bt = _band_keys(minima_th)
    order_bt = np.argsort(keys_bt, axis=1, kind="stable").astype(np.int32)
    return _Index(places, texts, minima_th, order_bt, np.take_along_axis(keys_bt, order_bt, axis=1))


def _blocks(training: Iterable[Examples]) -> Iterator[list[str]]:
    texts = (text for examples in training for column in examples.texts.values() for text in column if text)
    while block := list(islice(texts, BLOCK)):
        yield block


def _words(text: str) -> list[str]:
    text = plain(text)
    return text.split() if text.isascii() else WORD.findall(text) or [text]


def _minima(texts: list[str]) -> np.ndarray:
    """The smallest value of each hash function over the shingles of each text, [t, h]."""
    words = list(map(_words, texts))
    length_t = np.array(list(map(len, words)))
    start_t = np.cumsum(length_t) - length_t
    word_s = util.hash_array(np.array(list(chain.from_iterable(words)), dtype=object))  # `hash` differs in each process
    pair_s = word_s * MULTIPLIERS[0] + np.roll(word_s, -1)
    pair_s[start_t + length_t - 1] = word_s[start_t + length_t - 1]  # the last word of a text starts no pair
    minima_th = np.empty((len(texts), HASHES), dtype=np.uint32)
    for number, multiplier in enumerate(MULTIPLIERS[1:]):
        smaller_s = np.minimum(word_s * multiplier, pair_s * multiplier)
        minima_th[:, number] = np.minimum.reduceat(smaller_s, start_t) >> np.uint64(32)
    return minima_th


def _band_keys(minima_th: np.ndarray) -> np.ndarray:
    """A number for the rows of each band, [b, t]."""
    part_tbr = minima_th.reshape(len(minima_th), BANDS, -1).astype(np.uint64)
    return (part_tbr * MULTIPLIERS[1 : part_tbr.shape[2] + 1]).sum(axis=2, dtype=np.uint64).T


def _candidates(index: _Index, minima_th: np.ndarray) -> dict[int, int]:
    """Evaluation text -> the text of a block that is most like it by MinHash, if any is like it."""
    pairs = []
    for keys_t, order_t, known_t in zip(_band_keys(minima_th), index.order_bt, index.keys_bt, strict=True):
        first_t = np.searchsorted(known_t, keys_t)
        for place_t in (first_t + offset for offset in range(MAX_CANDIDATES)):
            at = np.flatnonzero(known_t[np.minimum(place_t, len(known_t) - 1)] == keys_t)
            at = at[place_t[at] < len(known_t)]
            pairs.append(np.stack([order_t[place_t[at]], at], axis=1))
    pair_p2 = np.unique(np.concatenate(pairs), axis=0)
    estimate_p = np.concatenate(
        [
            (index.minima_th[part_p2[:, 0]] == minima_th[part_p2[:, 1]]).mean(axis=1)
            for part_p2 in np.array_split(pair_p2, len(pair_p2) // BLOCK + 1)
        ]
    )
    order_p = np.argsort(estimate_p, kind="stable")  # so that the last of a text's candidates is the best
    order_p = order_p[estimate_p[order_p] >= MIN_ESTIMATE]
    return dict(pair_p2[order_p].tolist())


def _jaccard(first: str, second: str) -> float:
    one, other = (set(words) | set(pairwise(words)) for words in (_words(first), _words(second)))
    return len(one & other) / len(one | other)
