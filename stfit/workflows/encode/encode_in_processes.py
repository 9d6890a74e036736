"""Parts of the texts at once, each in its own process, which are joined when all are done."""

import logging
import os
import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stfit.data.embeddings.parts import complete_parts, read_parts, require_only_parts, stored_parts
from stfit.data.part import Part
from stfit.events import Encoded, EncodeEvent, Finished
from stfit.io.atomic import wrap_os_errors
from stfit.io.outputs import require_output
from stfit.lazy import torch
from stfit.options import EncodeOptions
from stfit.runtime.run_folder import lock_folder
from stfit.runtime.signals import handle_signals_resumably
from stfit.runtime.workers import run_workers
from stfit.workflows.encode.encode_texts import (
    calibration_of_model,
    encode_texts,
    load_calibration,
    read_paths,
    require_encodable,
    write_quantized,
)
from stfit.workflows.encode.encode_windows import EncodeStats, summarize
from stfit.workflows.encode.text_windows import Inputs

log = logging.getLogger("stfit")


def encode_in_processes(
    model: str,
    inputs: Inputs,
    output: Path,
    options: EncodeOptions,
    processes: int,
    *,
    calibration: Path | None = None,
    with_text: bool = False,
    device: str = "auto",
) -> Generator[Encoded, None, dict[str, Any]]:
    """After InterruptedRun, the same command resumes; with another number of processes, it starts again."""
    calibration = calibration or calibration_of_model(model, options)
    require_encodable(model, inputs, output, options, calibration, with_text)
    target = Path(os.path.realpath(output))
    folder = target.with_name(target.name + ".parts")
    require_output(folder, read_paths(model, inputs), is_folder=True)
    require_only_parts(folder)
    has_ranges = calibration is None or calibration.exists()
    # Without ranges, parts hold float32: they are quantized when all embeddings are known.
    options_of_parts = options if has_ranges else replace(options, precision="float32")
    given = (model, folder, options_of_parts, calibration if has_ranges else None, with_text, device)
    parts = [replace(inputs, part=Part(number, processes)) for number in range(1, processes + 1)]
    stats = EncodeStats()
    kept = f"what was encoded is kept in {folder}"
    with lock_folder(folder / "output"), handle_signals_resumably(lambda: kept), wrap_os_errors(output):
        _delete_other_parts(folder, processes)
        yield from _follow([(part, *given) for part in parts], stats)
        stored = complete_parts(folder)
        stats.dim = stored[0].made["dimensions"]
        known = load_calibration(calibration, options, stored[0].made["model"], stats.dim)
        write_quantized(target, options, known, inputs.source.dataset, lambda: read_parts(stored), stats.rows)
        shutil.rmtree(folder)
    return summarize(output, stats)


def _delete_other_parts(folder: Path, processes: int) -> None:
    if others := [stored for stored in stored_parts(folder) if stored.part.count != processes]:
        log.warning("%s: the parts of %d processes are deleted", folder, others[0].part.count)
        for path in folder.glob("part-*"):
            shutil.rmtree(path)


def _follow(
    arguments: list[tuple[Inputs, str, Path, EncodeOptions, Path | None, bool, str]], stats: EncodeStats
) -> Iterator[Encoded]:
    start = time.perf_counter()
    latest: dict[int, Encoded] = {}
    for number, event in run_workers(_encode_part, arguments):
        if isinstance(event, Finished):
            _add(event, stats)
        else:
            latest[number] = event
            shares = [event.share for event in latest.values() if event.share is not None]
            rows = sum(event.rows for event in latest.values())
            share = sum(shares) / len(arguments) if len(shares) == len(latest) else None
            yield Encoded(rows, rows / (time.perf_counter() - start), share)


def _add(finished: Finished, stats: EncodeStats) -> None:
    of_part = finished.result
    stats.rows += of_part["rows"]
    stats.resumed += of_part["resumed_rows"]
    stats.distinct += of_part["distinct"]
    stats.seconds = max(stats.seconds, of_part["seconds"])
    cosines = [cosine for cosine in (stats.cosine, of_part["cosine_to_float32"]) if cosine is not None]
    stats.cosine = min(cosines, default=None)


def _encode_part(
    inputs: Inputs,
    model: str,
    folder: Path,
    options: EncodeOptions,
    calibration: Path | None,
    with_text: bool,
    device: str,
) -> Iterator[EncodeEvent]:
    assert inputs.part is not None
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{(inputs.part.number - 1) % torch.cuda.device_count()}"
    result = yield from encode_texts(
        model, inputs, folder, options, calibration=calibration, with_text=with_text, device=device, is_shared=False
    )
    yield Finished(result)
