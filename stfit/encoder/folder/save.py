"""Write a model folder in the oldest layout that sentence-transformers still reads."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.files import weights_of, write_weights
from stfit.encoder.folder.st_config import pooling_config, st_settings
from stfit.encoder.quiet import quiet_transformers
from stfit.errors import ModelError
from stfit.io.json_files import write_json

SAMPLE = ["What does the folder of a model say?", "It says as much as the model itself: naïve café, 東京, 3.5 %."]
MAX_ERROR = 0.02
"""Relative to the largest value: half precision rounds differently in batches of another size."""


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write the model so that sentence-transformers 2.x to 6.x, and stfit, load it with the same embeddings."""
    config, base = encoder.config, encoder.base
    modules = [(base.subfolder, base.st_name)]
    (folder / base.subfolder).mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        base.write(folder / base.subfolder)

    def add(st_name: str, config_file: str, content: dict[str, Any], weights: dict[str, Any]) -> None:
        path = folder / f"{len(modules)}_{st_name}"
        modules.append((path.name, st_name))
        write_json(path / config_file, content)
        if weights:
            write_weights(weights, path)

    dim = base.dim
    for token_layer, module in zip(config.token_layers, encoder.token_layers, strict=True):
        add(token_layer.aliases[0], token_layer.config_file, token_layer.to_st(dim, module), weights_of(module))
        dim = token_layer.dim_after(dim)
    if config.pooling:
        add("Pooling", "config.json", pooling_config(config, dim), {})
        dim *= len(config.pooling)
    for layer, module in zip(config.layers, encoder.layers, strict=True):
        add(layer.aliases[0], layer.config_file, layer.to_st(dim, module), weights_of(module))
        dim = layer.dim_after(dim)
    write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{st_name}"}
            for index, (path, st_name) in enumerate(modules)
        ],
    )
    write_json(folder / "config_sentence_transformers.json", st_settings(config))
    _require_same_embeddings(encoder, folder)


def _require_same_embeddings(encoder: Encoder, folder: Path) -> None:
    """Raise ModelError unless the folder, as it is read again, embeds texts as the encoder does."""
    devices = [encoder.device] if encoder.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # building a model draws random weights
        saved = load_encoder(folder, str(encoder.device))
    saved.precision = encoder.precision
    expected_nd, embedding_nd = encoder.encode(SAMPLE, prompt=""), saved.encode(SAMPLE, prompt="")
    tolerance = MAX_ERROR * np.abs(expected_nd).max(initial=1e-6)
    if not np.allclose(embedding_nd, expected_nd, rtol=0, atol=tolerance, equal_nan=True):
        raise ModelError(
            f"{folder}: the saved model does not give the embeddings of the trained one. This is a bug in stfit; the "
            "last checkpoint is intact"
        )
