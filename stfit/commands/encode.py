"""`stfit encode`: any number of texts -> windows on disk, each with a digest of its origin -> embeddings in a file.

Of a part of the texts, the output is a folder, in which the part has its place beside the others.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.embedding_parts import StoredPart, find_part, part_folder, require_only_parts, require_same, write_part
from stfit.data.embedding_writers import (
    EmbeddingRows,
    SavedWindows,
    bytes_per_row,
    check_columns,
    check_suffix,
    write_output,
)
from stfit.data.mapping.texts import Texts
from stfit.data.part import Part
from stfit.data.reading.load_table import count_rows
from stfit.data.reading.local_files import input_paths, local_files
from stfit.data.reading.sample import fingerprint_sample
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.export.quantization import CALIBRATED, Ranges, check_ranges, load_ranges, quantize, save_ranges
from stfit.encoder.folder.resolve import model_in, paths_of_model
from stfit.errors import DataError, InterruptedRun, ModelError, RecipeError, StfitError
from stfit.events import Encoded, EncodeEvent, Finished
from stfit.io.atomic import wrap_os_errors
from stfit.io.display import shorten, single_line
from stfit.io.hashing import hash_buffers
from stfit.io.outputs import require_output
from stfit.io.unicode import require_text
from stfit.options import EncodeOptions
from stfit.progress import task
from stfit.runtime.device import choose_device, warn_of_slow_precision
from stfit.runtime.run_folder import lock_folder
from stfit.runtime.signals import handle_signals
from stfit.runtime.system import peak_memory
from stfit.similarity import agreement
from stfit.workflows.text_windows import Inputs, OpenedTexts, Window, open_texts, stream_text_windows

log = logging.getLogger("stfit")

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
class Calibration:
    """The file of ranges for int8 and uint8, and what the embeddings must have in common with those of the ranges."""

    path: Path
    conditions: dict[str, Any]
    ranges: Ranges | None
    """None if the file is to be written."""


@dataclass(frozen=True)
class _Job:
    encoder: Encoder
    inputs: Inputs
    opened: OpenedTexts
    options: EncodeOptions
    calibration: Calibration | None
    with_text: bool

    @property
    def ranges(self) -> Ranges | None:
        return self.calibration.ranges if self.calibration else None

    @property
    def columns(self) -> list[str]:
        return [*(["text"] if self.with_text else []), *self.inputs.keep]

    @property
    def stored_precision(self) -> str:
        """Of windows: without ranges they hold float32, and are quantized when all embeddings are known."""
        return "float32" if self.options.precision in CALIBRATED and self.ranges is None else self.options.precision


def encode(
    model: str,
    inputs: Inputs,
    output: Path,
    options: EncodeOptions,
    *,
    calibration: Path | None = None,
    with_text: bool = False,
    device: str = "auto",
    is_shared: bool = True,
) -> Iterator[EncodeEvent]:
    """After InterruptedRun, the same command resumes.

    Of a part, `output` is the folder of all parts; `is_shared`: other commands write there, from the same inputs.
    """
    require_encodable(model, inputs, output, options, calibration, with_text)
    part = inputs.part
    target = Path(os.path.realpath(output if part is None else part_folder(output, part)))
    windows = SavedWindows(target.with_name(target.name + ".windows"))
    windows.require_own()
    if part is None:
        require_output(windows.folder, read_paths(model, inputs), is_folder=True)
    local_files(inputs.source)  # report a missing file, or a column of it, before the model is loaded
    opened = open_texts(inputs)
    encoder = load_encoder(model_in(model), choose_device(device))
    if options.fast:
        warn_of_slow_precision("bfloat16", encoder.device.type)
    stats = EncodeStats(dim=encoder.resolve_dim(options.truncate_dim))
    if options.precision in ("binary", "ubinary") and stats.dim % 8:
        raise RecipeError(f"{options.precision} packs 8 dimensions into a byte, and {stats.dim} is not a multiple of 8")
    known = load_calibration(calibration, options, encoder.fingerprint, stats.dim)
    job = _Job(encoder, inputs, opened, options, known, with_text)
    if part is None:
        write = partial(write_quantized, target, options, known, inputs.source.dataset)
        yield from _encode_windows(job, windows, write, output, target.suffix, stats)
    else:
        yield from _encode_part(job, windows, _describe_part(job, model, target, part), output, is_shared, stats)
    yield Finished(summarize(output, stats))


def _encode_part(
    job: _Job, windows: SavedWindows, own: StoredPart, output: Path, is_shared: bool, stats: EncodeStats
) -> Iterator[Encoded]:
    if is_shared:
        require_same(output, own)
    if stored := find_part(own):
        stats.rows = stats.resumed = stored.rows
        return

    def write(read: ReadRows, count: int) -> None:
        with task(f"writing {own.folder.name}"):
            write_part(read(), own._replace(rows=count))

    yield from _encode_windows(job, windows, write, output, "", stats)


def _encode_windows(
    job: _Job,
    windows: SavedWindows,
    write: Callable[[ReadRows, int], None],
    output: Path,
    suffix: str,
    stats: EncodeStats,
) -> Iterator[Encoded]:
    """Embed all texts in windows, which an interruption keeps, and `write` them when all are there."""
    is_resumed = windows.any()
    with lock_folder(windows.folder / "output"), handle_signals():
        try:
            with wrap_os_errors(output):
                yield from _save_windows(job, windows, suffix, stats)
                write(partial(windows.read_all, stats.windows), stats.rows)
                windows.delete()
        except InterruptedRun as stop:
            kept = f"{stats.rows} rows are kept in {windows.folder}; run the same command to resume"
            raise InterruptedRun(f"{stop}: {kept}", stop.exit_code - 128) from stop
        except StfitError:
            if not stats.rows and not is_resumed:
                windows.delete()
            raise


def require_encodable(
    model: str, inputs: Inputs, output: Path, options: EncodeOptions, calibration: Path | None, with_text: bool
) -> None:
    """Raises RecipeError or ResourceError for what can be said without reading anything."""
    is_folder = inputs.part is not None or not output.suffix
    if inputs.part is None:
        check_suffix(output)
    else:
        require_only_parts(output)
    if is_folder:
        require_text(output)  # a dataset's folder, which names itself in JSON
    check_columns([*inputs.keep, *(["text"] if with_text else [])], output)
    if (calibration is None) == (options.precision in CALIBRATED):
        raise RecipeError(
            "int8 and uint8 need --calibration FILE; other precisions do not accept it. The file holds the range of "
            "each dimension. It is created from this input if missing; use it again to encode queries for this corpus"
        )
    read = read_paths(model, inputs)
    require_output(output, [*read, *([calibration] if calibration else [])], is_folder)
    if calibration and not calibration.exists():
        if inputs.part is not None:
            raise RecipeError(
                f"{calibration} does not exist, and a part does not tell the ranges of all: encode some texts of all "
                "parts with --calibration first"
            )
        require_output(calibration, read)


def read_paths(model: str, inputs: Inputs) -> list[Path]:
    return [*input_paths(inputs.source), *paths_of_model(Path(model))]


def load_calibration(path: Path | None, options: EncodeOptions, fingerprint: str, dim: int) -> Calibration | None:
    if path is None:
        return None
    conditions = {"normalize": options.normalize, "model": fingerprint}
    return Calibration(path, conditions, load_ranges(path, dim, conditions))


def _describe_part(job: _Job, model: str, target: Path, part: Part) -> StoredPart:
    """The part with what it is made from; its rows are not known yet."""
    encoder, options, source, columns = job.encoder, job.options, job.inputs.source, job.opened.columns
    sample = fingerprint_sample(source)
    made = {
        "model": encoder.fingerprint,
        "input": sample,
        "texts": columns.texts if columns else None,
        "ids": columns.ids if columns else None,
        "prompt": encoder.prompt(options.prompt_name),
        "normalize": options.normalize,
        "dimensions": encoder.resolve_dim(options.truncate_dim),
        "precision": options.precision,
        "fast": options.fast,
        "columns": job.columns,
        "ranges": hash_buffers(job.ranges.low, job.ranges.high) if job.ranges else None,
    }
    named = {"model": f"{model} ({encoder.fingerprint[:12]})", "input": f"{source.dataset} ({sample[:12]})"}
    return StoredPart(target, part, 0, made, named)


def write_quantized(
    output: Path, options: EncodeOptions, calibration: Calibration | None, dataset: str, read: ReadRows, count: int
) -> None:
    """Write `count` rows, which are not quantized yet if there are no ranges: then these are computed, and kept."""
    rows, computed = read(), None
    if calibration and calibration.ranges is None:
        if not count:
            raise DataError(f"{dataset}: contains no text to compute ranges from")
        computed = reduce(Ranges.union, (Ranges.from_embeddings(window.values) for window in read()))
        for warning in check_ranges(computed, count):
            log.warning("%s: %s", calibration.path, warning)
        rows = (replace(window, values=quantize(window.values, options.precision, computed)) for window in read())
    with task(f"writing {output.name}"):
        write_output(rows, output, count)
    if calibration and computed:  # last: with a file of ranges, the windows of the next try would be others
        save_ranges(computed, calibration.path, calibration.conditions)


def _save_windows(job: _Job, saved: SavedWindows, suffix: str, stats: EncodeStats) -> Iterator[Encoded]:
    encoder, options, ranges = job.encoder, job.options, job.ranges
    prompt = encoder.prompt(options.prompt_name)
    skip = encoder.prompt_skip(prompt)
    precision = job.stored_precision
    range_values = [ranges.low.tolist(), ranges.high.tolist()] if ranges else None
    settings = json.dumps([encoder.fingerprint, asdict(options), precision, range_values, job.with_text])

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
        with suppress(StfitError, OSError, ValueError, EOFError):  # reading the rows reports it
            self._rows = count_rows(inputs.source, inputs.part)

    def take_once(self) -> int | None:
        """The number when it is known for the first time; else None."""
        rows, self._was_taken = (None if self._was_taken else self._rows), self._rows is not None
        return rows

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
