"""Embed texts in windows, each saved to disk with a digest of its origin, so that an interruption loses one at most."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.embeddings.saved_windows import SavedWindows
from stfit.data.embeddings.writers import EmbeddingRows, bytes_per_row
from stfit.data.mapping.texts import Texts
from stfit.data.reading.load_table import count_rows
from stfit.encoder.encoder import Encoder
from stfit.encoder.export.quantization import CALIBRATED, Ranges, quantize
from stfit.errors import ModelError, StfitError
from stfit.events import Encoded
from stfit.io.atomic import wrap_os_errors
from stfit.io.display import shorten, single_line
from stfit.options import EncodeOptions
from stfit.runtime.run_folder import lock_folder
from stfit.runtime.signals import handle_signals_resumably
from stfit.runtime.system import peak_memory
from stfit.similarity import agreement
from stfit.workflows.encode.text_windows import Inputs, OpenedTexts, Window, stream_text_windows

ReadRows = Callable[[], Iterator[EmbeddingRows]]


@dataclass
class EncodeStats:
    rows: int = 0
    windows: int = 0
    resumed: int = 0
    distinct: int = 0
    seconds: float = 0.0
    dim: int = 0
    cosine: float | None = None
    """The lowest between an embedding computed with `fast` and in float32, in one window; None without `fast`."""

    @property
    def rows_per_second(self) -> float:
        return (self.rows - self.resumed) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class EncodeJob:
    encoder: Encoder
    fingerprint: str
    """Of the encoder: a digest of all weights, which is computed once."""
    inputs: Inputs
    opened: OpenedTexts
    options: EncodeOptions
    ranges: Ranges | None
    """For int8 and uint8, if they are known already."""
    with_text: bool

    @property
    def columns(self) -> list[str]:
        return [*(["text"] if self.with_text else []), *self.inputs.keep]

    @property
    def stored_precision(self) -> str:
        """Of windows: without ranges they hold float32, and are quantized when all embeddings are known."""
        return "float32" if self.options.precision in CALIBRATED and self.ranges is None else self.options.precision


def encode_windows(
    job: EncodeJob,
    windows: SavedWindows,
    write: Callable[[ReadRows, int], None],
    output: Path,
    suffix: str,
    stats: EncodeStats,
) -> Iterator[Encoded]:
    """Embed all texts in windows, which an interruption keeps, and `write` them when all are there."""
    is_resumed = windows.any()

    def describe_kept() -> str:
        return f"{stats.rows} rows are kept in {windows.folder}"

    with lock_folder(windows.folder / "output"), handle_signals_resumably(describe_kept):
        try:
            with wrap_os_errors(output):
                yield from _save_windows(job, windows, suffix, stats)
                write(partial(windows.read_all, stats.windows), stats.rows)
                windows.delete()
        except StfitError:
            if not stats.rows and not is_resumed:
                windows.delete()
            raise


def _save_windows(job: EncodeJob, saved: SavedWindows, suffix: str, stats: EncodeStats) -> Iterator[Encoded]:
    encoder, options, ranges = job.encoder, job.options, job.ranges
    prompt = encoder.prompt(options.prompt_name)
    skip = encoder.prompt_skip(prompt)
    precision = job.stored_precision
    range_values = [ranges.low.tolist(), ranges.high.tolist()] if ranges else None
    settings = json.dumps([job.fingerprint, asdict(options), precision, range_values, job.with_text])

    def digest_of(texts: Texts) -> str:
        return sha256(json.dumps([settings, texts.ids, texts.texts, texts.kept], default=str).encode()).hexdigest()

    row_bytes = bytes_per_row(precision, stats.dim) + bytes_per_row(options.precision, stats.dim, suffix)
    total = _RowCount(job.inputs)
    windows = stream_text_windows(
        job.opened.blocks, encoder, prompt, lambda number, texts: saved.has(number, digest_of(texts))
    )
    for window in windows:
        start = time.perf_counter()
        if rows := total.take_once():
            saved.require_space(rows * row_bytes)
        if window.sequences is None:
            stats.resumed += len(window.all)
        else:
            embeddings = _embed(encoder, window.sequences, skip, options, options.fast)
            _require_finite(embeddings, window, precision)
            values = quantize(embeddings, precision, ranges)[window.place]
            columns = {"text": window.all.texts} if job.with_text else {}
            columns |= {name: [row[name] for row in window.all.kept] for name in job.inputs.keep}
            saved.write(window.number, digest_of(window.all), EmbeddingRows(window.all.ids, columns, values))
            stats.distinct += len(window.distinct)
            stats.seconds += time.perf_counter() - start
            if options.fast and stats.cosine is None:
                exact = _embed(encoder, window.sequences, skip, options, fast=False)
                stats.cosine = float(agreement(embeddings, exact).min(initial=1.0))
        stats.rows += len(window.all)
        stats.windows += 1
        yield Encoded(stats.rows, stats.rows_per_second, total.share(window.all.row))


def _embed(encoder: Encoder, sequences: list[np.ndarray], skip: int, options: EncodeOptions, fast: bool) -> np.ndarray:
    return encoder.embed(
        sequences,
        skip,
        normalize=options.normalize,
        truncate_dim=options.truncate_dim,
        fast=fast,
        batch_tokens=options.batch_tokens,
    )


def _require_finite(embedding_rd: np.ndarray, window: Window, precision: str) -> None:
    """Raises ModelError for NaN and overflow: an index would keep them, and integers can't even say it."""
    with np.errstate(over="ignore"):
        stored_rd = embedding_rd.astype(np.float16) if precision == "float16" else embedding_rd
    broken = ~np.isfinite(stored_rd).all(axis=1)
    if not broken.any():
        return
    first = window.all.texts.index(window.distinct[int(broken.argmax())])
    text = shorten(single_line(window.all.texts[first]), 60)
    cause = "a value is too large for float16" if np.isfinite(embedding_rd).all() else "a value overflows in the model"
    raise ModelError(f'the embedding of the text with id {window.all.ids[first]}, "{text}", is not finite: {cause}')


class _RowCount:
    """Number of rows of the input, counted in a thread so that encoding does not wait for it."""

    def __init__(self, inputs: Inputs) -> None:
        self._rows: int | None = None
        self._was_taken = False
        threading.Thread(target=self._count, args=(inputs,), daemon=True).start()

    def _count(self, inputs: Inputs) -> None:
        with suppress(Exception):  # of any library that reads: reading the rows reports it
            self._rows = count_rows(inputs.source, inputs.part)

    def take_once(self) -> int | None:
        """The number when it is known for the first time; else None."""
        rows = self._rows  # read once: the thread may set it at any moment
        was_taken, self._was_taken = self._was_taken, rows is not None
        return None if was_taken else rows

    def share(self, row: int) -> float | None:
        return min(1.0, row / self._rows) if self._rows else None


def summarize(output: Path, stats: EncodeStats) -> dict[str, Any]:
    return {
        "output": str(output),
        "rows": stats.rows,
        "embedding_dim": stats.dim,
        "rows_per_second": stats.rows_per_second,
        "seconds": round(stats.seconds, 3),
        "distinct": stats.distinct,
        "resumed_rows": stats.resumed,
        "cosine_to_float32": stats.cosine,
        "peak_rss_mib": peak_memory() / 2**20,
    }
