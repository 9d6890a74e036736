"""Any number of texts -> embeddings in a file or, of a part of the texts, in a folder beside the other parts."""

import logging
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

from stfit.data.embeddings.parts import StoredPart, find_part, part_folder, require_only_parts, require_same, write_part
from stfit.data.embeddings.saved_windows import SavedWindows
from stfit.data.embeddings.writers import check_columns, check_suffix, write_output
from stfit.data.part import Part
from stfit.data.reading.local_files import input_paths, local_files
from stfit.data.reading.sample import fingerprint_sample
from stfit.encoder.build import load_encoder
from stfit.encoder.export.quantization import (
    CALIBRATED,
    Ranges,
    check_ranges,
    load_ranges,
    quantize,
    ranges_of_model,
    save_ranges,
)
from stfit.encoder.folder.resolve import model_in, paths_of_model
from stfit.errors import DataError, RecipeError
from stfit.events import Encoded
from stfit.io.hashing import hash_buffers
from stfit.io.outputs import require_output
from stfit.io.unicode import require_text
from stfit.options import EncodeOptions
from stfit.progress import task
from stfit.runtime.device import choose_device, warn_of_slow_precision
from stfit.workflows.encode.encode_windows import EncodeJob, EncodeStats, ReadRows, encode_windows, summarize
from stfit.workflows.encode.text_windows import Inputs, open_texts

log = logging.getLogger("stfit")


@dataclass(frozen=True)
class Calibration:
    """The file of ranges for int8 and uint8, and what the embeddings must have in common with those of the ranges."""

    path: Path
    conditions: dict[str, Any]
    ranges: Ranges | None
    """None if the file is to be written."""


def encode_texts(
    model: str,
    inputs: Inputs,
    output: Path,
    options: EncodeOptions,
    *,
    calibration: Path | None = None,
    with_text: bool = False,
    device: str = "auto",
    is_shared: bool = True,
) -> Generator[Encoded, None, dict[str, Any]]:
    """After InterruptedRun, the same command resumes.

    Of a part, `output` is the folder of all parts; `is_shared`: other commands write there, from the same inputs.
    """
    calibration = calibration or calibration_of_model(model, options)
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
    fingerprint = encoder.fingerprint
    known = load_calibration(calibration, options, fingerprint, stats.dim)
    job = EncodeJob(encoder, fingerprint, inputs, opened, options, known.ranges if known else None, with_text)
    if part is None:
        write = partial(write_quantized, target, options, known, inputs.source.dataset)
        yield from encode_windows(job, windows, write, output, target.suffix, stats)
    else:
        yield from _encode_part(job, windows, _describe_part(job, model, target, part), output, is_shared, stats)
    return summarize(output, stats)


def _encode_part(
    job: EncodeJob, windows: SavedWindows, own: StoredPart, output: Path, is_shared: bool, stats: EncodeStats
) -> Iterator[Encoded]:
    if is_shared:
        require_same(output, own)
    if stored := find_part(own):
        stats.rows = stats.resumed = stored.rows
        return

    def write(read: ReadRows, count: int) -> None:
        with task(f"writing {own.folder.name}"):
            write_part(read(), own._replace(rows=count))

    yield from encode_windows(job, windows, write, output, "", stats)


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
            "int8 and uint8 need --calibration FILE, unless the model was published with ranges; other precisions do "
            "not accept it. The file holds the range of each dimension. It is created from this input if missing; use "
            "it again to encode queries for this corpus"
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


def calibration_of_model(model: str, options: EncodeOptions) -> Path | None:
    """The ranges that a model was published with, if the precision needs some."""
    return ranges_of_model(model) if options.precision in CALIBRATED else None


def read_paths(model: str, inputs: Inputs) -> list[Path]:
    return [*input_paths(inputs.source), *paths_of_model(Path(model))]


def load_calibration(path: Path | None, options: EncodeOptions, fingerprint: str, dim: int) -> Calibration | None:
    if path is None:
        return None
    conditions = {"normalize": options.normalize, "model": fingerprint}
    return Calibration(path, conditions, load_ranges(path, dim, conditions))


def _describe_part(job: EncodeJob, model: str, target: Path, part: Part) -> StoredPart:
    """The part with what it is made from; its rows are not known yet."""
    encoder, options, source, columns = job.encoder, job.options, job.inputs.source, job.opened.columns
    sample = fingerprint_sample(source)
    made = {
        "model": job.fingerprint,
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
    named = {"model": f"{model} ({job.fingerprint[:12]})", "input": f"{source.dataset} ({sample[:12]})"}
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
