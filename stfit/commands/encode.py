"""`stfit encode`: any number of texts -> a file of embeddings, by one process or several, or a part of one."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from stfit.data.object_store import local_output, shown
from stfit.events import EncodeEvent, Finished
from stfit.options import EncodeOptions
from stfit.workflows.encode.encode_in_processes import encode_in_processes
from stfit.workflows.encode.encode_texts import encode_texts
from stfit.workflows.encode.text_windows import Inputs


def encode(
    model: str,
    inputs: Inputs,
    output: Path,
    options: EncodeOptions,
    *,
    calibration: Path | None = None,
    with_text: bool = False,
    device: str = "auto",
    processes: int = 1,
) -> Iterator[EncodeEvent]:
    """After InterruptedRun, the same command resumes."""
    run = encode_texts if processes == 1 else partial(encode_in_processes, processes=processes)
    with local_output(output, inputs.part) as target:
        result = yield from run(
            model, inputs, target, options, calibration=calibration, with_text=with_text, device=device
        )
    yield Finished(result | {"output": shown(output)})
