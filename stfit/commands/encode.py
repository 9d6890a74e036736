"""`stfit encode`: texts of any number -> a file of embeddings.

The texts come in windows. Each becomes a part on disk that is whole or absent and carries a digest of its texts and of
everything that decides their embeddings; an interrupted run goes on by skipping the windows whose parts are there.
"""

from __future__ import annotations

import json
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial, reduce
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.embedding_writers import Parts, Rows, check_output, write_output
from stfit.data.reading.block_reader import Texts, count_rows, files_of
from stfit.data.source import Source
from stfit.distributed import all_gather_numpy, all_gather_object, is_rank_zero
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.export.quantization import CALIBRATED, Ranges, load_ranges, quantize, save_ranges
from stfit.encoder.folder.resolve import model_in
from stfit.errors import DataError, InterruptedRun, RecipeError, ResourceError, StfitError
from stfit.runtime.device import choose_device
from stfit.runtime.run_folder import lock_folder
from stfit.runtime.signals import handle_signals
from stfit.workflows.text_windows import Inputs, stream_text_windows


@dataclass(frozen=True)
class EncodeOptions:
    """What decides an embedding besides its text and the model."""

    prompt_name: str | None = None
    normalize: bool = False
    truncate_dim: int | None = None
    precision: str = "float32"
    batch_tokens: int | None = None
    fast: bool = False


@dataclass(frozen=True)
class Encoded:
    """Progress: another part is on disk. `share` is the part of the input that is done, where that is known."""

    rows: int
    rows_per_second: float
    share: float | None


@dataclass
class EncodeStats:
    """A run of the command in numbers."""

    rows: int = 0
    parts: int = 0
    resumed: int = 0
    distinct: int = 0
    seconds: float = 0.0
    dim: int = 0
    cosine: float | None = None
    """The lowest between an embedding made fast and the float32 one, in one window; None where none is made fast."""

    @property
    def rows_per_second(self) -> float:
        """Of the rows that were embedded now."""
        return (self.rows - self.resumed) / self.seconds if self.seconds else 0.0


def encode(
    model: str,
    inputs: Inputs,
    output: Path,
    choices: EncodeOptions,
    *,
    calibration: Path | None = None,
    with_text: bool = False,
    device: str = "auto",
) -> Iterator[Encoded | dict[str, Any]]:
    """Embed every text and write `output`, by its suffix; yields progress, then what `--json` prints.

    Raises RecipeError for choices that don't go together, DataError for texts that can't be read, ResourceError for an
    output that can't be written, InterruptedRun after a signal: the same command then goes on.
    """
    check_output(output)
    files_of(inputs.source)  # what is not there should be said before a model is loaded
    if (calibration is None) == (choices.precision in CALIBRATED):
        raise RecipeError(
            "int8 and uint8 take --calibration FILE, and nothing else does: ranges of each dimension, made from this "
            "input where there is no such file yet, and needed again to make queries comparable with their corpus"
        )
    encoder = load_encoder(model_in(model), choose_device(device))
    dim = encoder.resolve_dim(choices.truncate_dim)
    if choices.precision in ("binary", "ubinary") and dim % 8:
        raise RecipeError(f"{choices.precision} puts 8 dimensions into a byte, and {dim} is no multiple of 8")
    ranges = load_ranges(calibration, dim) if calibration else None
    parts = Parts(output.with_name(output.name + ".parts"))
    work = EncodeStats(dim=dim)
    with lock_folder(parts.folder / "output"), handle_signals():
        try:
            yield from _write_parts(encoder, inputs, choices, ranges, parts, with_text, work)
            if is_rank_zero():
                _merge_parts(parts, inputs, output, choices, calibration, ranges, work)
        except InterruptedRun as stop:
            kept = f"{work.rows} rows are kept in {parts.folder}, the same command goes on from there"
            raise InterruptedRun(f"{stop}: {kept}", stop.exit_code - 128) from stop
        except OSError as error:
            raise ResourceError(f"{output}: can't be written: {error.strerror or error}") from error
        except StfitError:
            if not work.rows and is_rank_zero():
                shutil.rmtree(parts.folder)
            raise
    yield _summary(output, work)


def _merge_parts(
    parts: Parts,
    inputs: Inputs,
    output: Path,
    choices: EncodeOptions,
    calibration: Path | None,
    ranges: Ranges | None,
    work: EncodeStats,
) -> None:
    """The parts as one output; ranges that are still to be made are made of them first."""
    rows = (parts.read(number) for number in range(work.parts))
    if calibration and ranges is None:
        if not work.rows:
            raise DataError(f"{inputs.source.dataset}: holds no text to make ranges from")
        made = reduce(Ranges.union, (Ranges.from_embeddings(part.values) for part in rows))
        save_ranges(made, calibration)
        rows = (_quantized(parts.read(number), choices.precision, made) for number in range(work.parts))
    write_output(rows, parts.folder / "output", output, work.rows)
    shutil.rmtree(parts.folder)


def _write_parts(
    encoder: Encoder,
    inputs: Inputs,
    choices: EncodeOptions,
    ranges: Ranges | None,
    parts: Parts,
    with_text: bool,
    work: EncodeStats,
) -> Iterator[Encoded]:
    """Every window as a part on disk."""
    prompt = encoder.prompt(choices.prompt_name)
    skip = encoder.prompt_skip(prompt)
    # Without ranges the parts hold floats: they can only be counted once all are known.
    precision = "float32" if choices.precision in CALIBRATED and ranges is None else choices.precision
    ranged = [ranges.low.tolist(), ranges.high.tolist()] if ranges else None
    made_of = json.dumps([encoder.fingerprint, asdict(choices), precision, ranged, with_text])

    def digest_of(texts: Texts) -> str:
        return sha256(json.dumps([made_of, texts.ids, texts.texts], default=str).encode()).hexdigest()

    total = Total(inputs.source)
    found = stream_text_windows(inputs, encoder, prompt, lambda number, texts: parts.has(number, digest_of(texts)))
    for window in found:
        start = time.perf_counter()
        if window.sequences is None:
            work.resumed += len(window.all)
        else:
            embed = partial(
                encoder.embed,
                window.sequences,
                skip,
                normalize=choices.normalize,
                truncate_dim=choices.truncate_dim,
                batch_tokens=choices.batch_tokens,
            )
            own = embed(fast=choices.fast)
            embedding = all_gather_numpy(own, window.shares)
            if is_rank_zero():
                values = quantize(embedding, precision, ranges)[window.place]
                texts = window.all.texts if with_text else None
                parts.write(window.number, digest_of(window.all), Rows(window.all.ids, texts, values))
            work.distinct += len(window.distinct)
            work.seconds += time.perf_counter() - start
            if choices.fast and work.cosine is None:
                work.cosine = min(all_gather_object(_lowest_cosine(own, embed())))
        work.rows += len(window.all)
        work.parts += 1
        yield Encoded(work.rows, work.rows_per_second, total.share(window.all.row))


def _lowest_cosine(one_rd: np.ndarray, other_rd: np.ndarray) -> float:
    """Of two embeddings of the same text."""
    lengths = np.linalg.norm(one_rd, axis=1) * np.linalg.norm(other_rd, axis=1)
    return float(((one_rd * other_rd).sum(axis=1) / lengths).min(initial=1.0))


class Total:
    """How many rows the input has, counted in a thread of its own: an estimate has no right to make anyone wait."""

    def __init__(self, source: Source) -> None:
        self._rows: int | None = None
        threading.Thread(target=self._count, args=(source,), daemon=True).start()

    def _count(self, source: Source) -> None:
        try:
            self._rows = count_rows(source)
        except (StfitError, OSError, ValueError, EOFError):
            return  # whoever reads the rows says it better

    def share(self, row: int) -> float | None:
        """The share of the rows up to `row`; None as long as nobody knows."""
        return min(1.0, row / self._rows) if self._rows else None


def _quantized(rows: Rows, precision: str, ranges: Ranges) -> Rows:
    """The same rows in fewer bits."""
    return Rows(rows.ids, rows.texts, quantize(rows.values, precision, ranges))


def _summary(output: Path, work: EncodeStats) -> dict[str, Any]:
    """What `stfit encode --json` prints."""
    return {
        "output": str(output),
        "rows": work.rows,
        "embedding_dim": work.dim,
        "rows_per_second": work.rows_per_second,
        "seconds": round(work.seconds, 3),
        "distinct": work.distinct,
        "resumed_rows": work.resumed,
        "cosine_to_float32": work.cosine,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
