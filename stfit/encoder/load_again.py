"""Models that travel to other processes by name: each process loads them once, and no weight is sent."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import model_in
from stfit.runtime.device import choose_device


class Origin(NamedTuple):
    """How a model was loaded; paths are absolute."""

    model: str
    device: str
    threads: int | None


_loading = threading.Lock()
_loaded: dict[Origin, Encoder] = {}


def load(model: str, device: str, threads: int | None) -> Encoder:
    """A model that is pickled as its origin, as long as its weights are those that were loaded."""
    encoder = load_encoder(model_in(model), choose_device(device))
    encoder.threads = threads
    encoder.eval()  # `encode` would have to switch to it and back, which another thread would see
    path = Path(model)
    origin = Origin(str(path.absolute()) if path.exists() else model, device, threads)
    encoder.pickle_as(_load_once, origin)
    return encoder


def _load_once(*origin: str) -> Encoder:
    with _loading:
        found = Origin(*origin)  # type: ignore[arg-type]
        if found not in _loaded:
            _loaded[found] = load(*found)
        return _loaded[found]
