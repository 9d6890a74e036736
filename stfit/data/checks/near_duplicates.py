"""Near-duplicates of evaluation texts among training texts: texts that share most of their words and pairs of words.

Candidates are found by MinHash, and the best are compared exactly. Memory grows with the evaluation texts only:
training texts pass by in blocks. Array names: t = texts, h = hash functions, b = bands, p = pairs of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from stfit.data.checks.leakage import Measured
from stfit.data.checks.min_hash import HASHES, MIN_SHARED, band_keys, jaccard, minima
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.plain_text import plain
from stfit.data.table import name_rows
from stfit.errors import Problem
from stfit.io.display import shorten

MIN_ESTIMATE = 0.55
"""Lowest estimate of that share by MinHash, whose standard error is 0.06, that is worth an exact comparison."""
BLOCK = 20_000
"""Training texts compared at once."""
MAX_CANDIDATES = 4
"""Evaluation texts of one band that a training text is compared with: enough, as it has many bands."""


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
        for position, candidate in _candidates(index, minima(texts)).items():
            found = jaccard(index.texts[position], texts[candidate]), texts[candidate]
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
    minima_th = np.concatenate([np.empty((0, HASHES), np.uint32), *map(minima, blocks)])
    keys_bt = band_keys(minima_th)
    order_bt = np.argsort(keys_bt, axis=1, kind="stable").astype(np.int32)
    return _Index(places, texts, minima_th, order_bt, np.take_along_axis(keys_bt, order_bt, axis=1))


def _blocks(training: Iterable[Examples]) -> Iterator[list[str]]:
    texts = (text for examples in training for column in examples.texts.values() for text in column if text)
    while block := list(islice(texts, BLOCK)):
        yield block


def _candidates(index: _Index, minima_th: np.ndarray) -> dict[int, int]:
    """Evaluation text -> the text of a block that is most like it by MinHash, if any is like it."""
    pairs = []
    for keys_t, order_t, known_t in zip(band_keys(minima_th), index.order_bt, index.keys_bt, strict=True):
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
