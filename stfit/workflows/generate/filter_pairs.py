"""Generated rows on disk -> why each is left out. The rows pass by in blocks: any number of them fits into memory.

Array names: h = hash functions, k = rows that are kept so far.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import open_memmap

from stfit.data.checks.min_hash import HASHES, minima, repeats
from stfit.data.reading.text_lines import in_blocks
from stfit.generation.filters import LOST, NEAR, Filters, Row
from stfit.lazy import lazy
from stfit.progress import task

if TYPE_CHECKING:
    from stfit.workflows.generate import round_trip
else:
    round_trip = lazy("stfit.workflows.generate.round_trip")


def read_rows(path: Path) -> Iterator[list[Row]]:
    with path.open(encoding="utf-8") as lines:
        yield from in_blocks(map(json.loads, lines))


def why_left_out(rows: Path, count: int, filters: Filters, passages: Path, device: str) -> list[str | None]:
    """For each of `count` rows; `passages`: the texts that the retriever searches, by their number."""
    reasons: list[str | None] = []
    with task("filtering pairs", count) as step:
        for block in read_rows(rows):
            reasons += filters.reasons(block)
            step.advance(len(block))
    _mark(reasons, NEAR, _nearly_repeated(rows, reasons))
    if filters.options.round_trip is not None:
        kept, count = _kept(rows, reasons), reasons.count(None)
        _mark(reasons, LOST, round_trip.passages_not_found(kept, count, filters.options, passages, device))
    return reasons


def _mark(reasons: list[str | None], reason: str, is_marked_k: np.ndarray) -> None:
    """Mark some of the rows that are kept so far."""
    kept = [row for row, known in enumerate(reasons) if known is None]
    for row in np.array(kept, dtype=np.int64)[is_marked_k].tolist():
        reasons[row] = reason


def _kept(rows: Path, reasons: list[str | None]) -> Iterator[list[Row]]:
    start = 0
    for block in read_rows(rows):
        yield [row for row, reason in zip(block, reasons[start : start + len(block)], strict=True) if reason is None]
        start += len(block)


def _nearly_repeated(rows: Path, reasons: list[str | None]) -> np.ndarray:
    """Whether anchor and positive nearly equal those of an earlier row, for each row that is kept."""
    count = reasons.count(None)
    if not count:
        return np.zeros(0, dtype=bool)
    columns_kh = {
        role: open_memmap(rows.with_name(f"{role}.npy"), "w+", np.uint32, (count, HASHES))
        for role in ("anchor", "positive")
    }
    done = 0
    with task("looking for near-duplicates", count) as step:
        for block in filter(None, _kept(rows, reasons)):
            for role, minima_kh in columns_kh.items():
                minima_kh[done : done + len(block)] = minima([row[role] for row in block])
            done += len(block)
            step.update(done)
        return repeats([*columns_kh.values()])
