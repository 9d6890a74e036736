"""`stfit encode`: any number of texts -> parts on disk, each with a digest of its origin -> a file of embeddings."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.embedding_writers import EmbeddingRows, Parts, bytes_per_row, check_columns, check_suffix, write_output
from stfit.data.mapping.texts import Texts
from stfit.data.reading.local_files import count_rows, input_paths, local_files
from stfit.data.source import Source
from stfit.distributed import all_gather_numpy, all_gather_object, is_rank_zero
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.export.quantization import CALIBRATED, Ranges, check_ranges, load_ranges, quantize, save_ranges
from stfit.encoder.folder.resolve import model_in, paths_of_model
from stfit.errors import DataError, InterruptedRun, ModelError, RecipeError, StfitError
from stfit.events import Encoded, EncodeEvent, Finished
from stfit.io.atomic import wrap_os_errors
from stfit.io.display import shorten, single_line
from stfit.io.outputs import require_output
from stfit.io.unicode import require_text
from stfit.options import EncodeOptions
from stfit.progress import task
from stfit.runtime.device import choose_device, warn_of_slow_precision
from stfit.runtime.run_folder import lock_folder
from stfit.runtime.signals import handle_signals
from stfit.runtime.system import peak_memory
from stfit.similarity import agreement
from stfit.workflows.text_windows import Inputs, Window, open_texts, stream_text_windows

log = logging.getLogger("stfit")


@dataclass
class EncodeStats:
    rows: int = 0
    parts: int = 0
    resumed: int = 0
    distinct: int = 0
    seconds: float = 0.0
    dim: int = 0
    cosine: float | None = None
    """The lowest between an embedding computed with `fast` and in float32, in one window; None without `fast`."""

    @property
    def rows_per_second(self) -> float:
        return (self.rows - self.resumed) / self.seconds if self.seconds else 0.0


def encode(
    model: str,
    inputs: Inputs,
    output: Path,
    options: EncodeOptions,
    *,
    calibration: Path | None = None,
    with_text: bool = False,
    device: str = "auto",
) -> Iterator[EncodeEvent]:
    """After InterruptedRun, the same command resumes."""
    check_suffix(output)
    if not output.suffix:
        require_text(output)  # a dataset's folder, which names itself in JSON
    check_columns([*inputs.keep, *(["text"] if with_text else [])], output)
    _require_calibration(options.precision, calibration)
    read = [*input_paths(inputs.source), *paths_of_model(Path(model))]
    require_output(output, [*read, *([calibration] if calibration else [])], is_folder=not output.suffix)
    if calibration and not calibration.exists():
        require_output(calibration, read)
    target = Path(os.path.realpath(output))
    parts = Parts(target.with_name(target.name + ".parts"))
    parts.require_own()
    require_output(parts.folder, read, is_folder=True)
    local_files(inputs.source)  # report a missing file, or a column of it, before the model is loaded
    texts = open_texts(inputs)
    encoder = load_encoder(model_in(model), choose_device(device))
    if options.fast:
        warn_of_slow_precision("bfloat16", encoder.device.type)
    dim = encoder.resolve_dim(options.truncate_dim)
    if options.precision in ("binary", "ubinary") and dim % 8:
        raise RecipeError(f"{options.precision} packs 8 dimensions into a byte, and {dim} is not a multiple of 8")
    conditions = {"normalize": options.normalize, "model": encoder.fingerprint} if calibration else {}
    ranges = load_ranges(calibration, dim, conditions) if calibration else None
    is_resumed, stats = parts.any(), EncodeStats(dim=dim)
    with lock_folder(parts.folder / "output"), handle_signals():
        try:
            with wrap_os_errors(output):
                yield from _write_parts(encoder, inputs, texts, options, ranges, parts, target.suffix, with_text, stats)
                if is_rank_zero():
                    _merge_parts(parts, inputs, target, options, calibration, ranges, conditions, stats)
        except InterruptedRun as stop:
            kept = f"{stats.rows} rows are kept in {parts.folder}; run the same command to resume"
            raise InterruptedRun(f"{stop}: {kept}", stop.exit_code - 128) from stop
        except StfitError:
            if is_rank_zero() and not stats.rows and not is_resumed:
                parts.delete()
            raise
    yield Finished(_summary(output, stats))


def _require_calibration(precision: str, calibration: Path | None) -> None:
    if (calibration is None) == (precision in CALIBRATED):
        raise RecipeError(
            "int8 and uint8 need --calibration FILE; other precisions do not accept it. The file holds the range of "
            "each dimension. It is created from this input if missing; use it again to encode queries for this corpus"
        )


def _merge_parts(
    parts: Parts,
    inputs: Inputs,
    output: Path,
    options: EncodeOptions,
    calibration: Path | None,
    ranges: Ranges | None,
    conditions: dict[str, Any],
    stats: EncodeStats,
) -> None:
    rows: Iterator[EmbeddingRows] = map(parts.read, range(stats.parts))
    computed: Ranges | None = None
    if calibration and ranges is None:
        if not stats.rows:
            raise DataError(f"{inputs.source.dataset}: contains no text to compute ranges from")
        computed = reduce(Ranges.union, (Ranges.from_embeddings(part.values) for part in rows))
        for warning in check_ranges(computed, stats.rows):
            log.warning("%s: %s", calibration, warning)
        rows = (
            replace(part, values=quantize(part.values, options.precision, computed))
            for part in map(parts.read, range(stats.parts))
        )
    with task(f"writing {output.name}"):
        write_output(rows, output, stats.rows)
    if calibration and computed:  # last: with a file of ranges, the parts of the next try would be others
        save_ranges(computed, calibration, conditions)
    parts.delete()


def _write_parts(
    encoder: Encoder,
    inputs: Inputs,
    blocks: Iterable[Texts],
    options: EncodeOptions,
    ranges: Ranges | None,
    parts: Parts,
    suffix: str,
    with_text: bool,
    stats: EncodeStats,
) -> Iterator[Encoded]:
    prompt = encoder.prompt(options.prompt_name)
    skip = encoder.prompt_skip(prompt)
    # Without ranges, parts hold float32: they are quantized when all embeddings are known.
    precision = "float32" if options.precision in CALIBRATED and ranges is None else options.precision
    range_values = [ranges.low.tolist(), ranges.high.tolist()] if ranges else None
    settings = json.dumps([encoder.fingerprint, asdict(options), precision, range_values, with_text])

    def digest_of(texts: Texts) -> str:
        return sha256(json.dumps([settings, texts.ids, texts.texts, texts.kept], default=str).encode()).hexdigest()

    row_bytes = bytes_per_row(precision, stats.dim) + bytes_per_row(options.precision, stats.dim, suffix)
    total = _RowCount(inputs.source)
    windows = stream_text_windows(blocks, encoder, prompt, lambda number, texts: parts.has(number, digest_of(texts)))
    for window in windows:
        start = time.perf_counter()
        if is_rank_zero() and (rows := total.take_once()):
            parts.require_space(rows * row_bytes)
        if window.sequences is None:
            stats.resumed += len(window.all)
        else:
            own_embeddings = _embed(encoder, window.sequences, skip, options, options.fast)
            embeddings = all_gather_numpy(own_embeddings, window.shares)
            if is_rank_zero():
                _require_finite(embeddings, window, precision)
                values = quantize(embeddings, precision, ranges)[window.place]
                columns = {"text": window.all.texts} if with_text else {}
                columns |= {name: [row[name] for row in window.all.kept] for name in inputs.keep}
                parts.write(window.number, digest_of(window.all), EmbeddingRows(window.all.ids, columns, values))
            stats.distinct += len(window.distinct)
            stats.seconds += time.perf_counter() - start
            if options.fast and stats.cosine is None:
                exact = _embed(encoder, window.sequences, skip, options, fast=False)
                stats.cosine = min(all_gather_object(_lowest_cosine(own_embeddings, exact)))
        stats.rows += len(window.all)
        stats.parts += 1
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


def _lowest_cosine(fast_rd: np.ndarray, exact_rd: np.ndarray) -> float:
    return float(agreement(fast_rd, exact_rd).min(initial=1.0))


class _RowCount:
    """Number of rows of the input, counted in a thread so that encoding does not wait for it."""

    def __init__(self, source: Source) -> None:
        self._rows: int | None = None
        self._was_taken = False
        threading.Thread(target=self._count, args=(source,), daemon=True).start()

    def _count(self, source: Source) -> None:
        with suppress(StfitError, OSError, ValueError, EOFError):  # reading the rows reports it
            self._rows = count_rows(source)

    def take_once(self) -> int | None:
        """The number when it is known for the first time; else None."""
        rows, self._was_taken = (None if self._was_taken else self._rows), self._rows is not None
        return rows

    def share(self, row: int) -> float | None:
        return min(1.0, row / self._rows) if self._rows else None


def _summary(output: Path, stats: EncodeStats) -> dict[str, Any]:
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
