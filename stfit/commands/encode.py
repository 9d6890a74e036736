"""`stfit encode`: a file of texts -> a file of embeddings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from stfit.commands.evaluate import model_in
from stfit.commands.train import choose_device
from stfit.encoder.build import load_encoder
from stfit.errors import DataError, RecipeError, ResourceError


def encode(
    model: str,
    texts: Path,
    output: Path,
    *,
    prompt_name: str | None,
    normalize: bool,
    truncate_dim: int | None,
    device: str,
) -> dict[str, Any]:
    """Embed each line of a .txt file; write a float32 .npy of shape [lines, dim].

    Raises RecipeError for other suffixes, DataError for a file that can't be read, ResourceError for an output that
    can't be written.
    """
    if texts.suffix != ".txt" or output.suffix != ".npy":
        raise RecipeError(
            f"encode reads a .txt file (one text a line) and writes a .npy file; got {texts} and {output}"
        )
    lines = read_lines(texts)
    encoder = load_encoder(model_in(model), choose_device(device))
    start = time.perf_counter()
    embeddings = encoder.encode(lines, prompt_name=prompt_name, normalize=normalize, truncate_dim=truncate_dim)
    seconds = time.perf_counter() - start
    try:
        np.save(output, embeddings)
    except OSError as error:
        raise ResourceError(f"{output}: can't be written: {error.strerror}") from error
    rows, dim = embeddings.shape
    return {
        "output": str(output),
        "rows": rows,
        "embedding_dim": dim,
        "rows_per_second": rows / seconds if rows else 0.0,
    }


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, without their line ends."""
    try:
        with path.open(encoding="utf-8") as file:  # splitlines() would also cut at form feeds and U+2028
            return [line.removesuffix("\n") for line in file]
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 at byte {error.start}") from error
