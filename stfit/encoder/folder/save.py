"""A model folder that sentence-transformers loads as its own, in the oldest layout that it still reads.

How one is read, in every layout that it ever wrote, stands in model_json.py and build.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.st_config import ModelConfig
from stfit.encoder.folder.weights import weights_of
from stfit.encoder.pooling import POOLINGS
from stfit.io.json_files import write_json


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write the model so that sentence-transformers 2.x to 6.x, and stfit, load it with the same embeddings."""
    traits, source = encoder.config, encoder.source
    entries = [(source.subfolder, source.st_name)]
    (folder / source.subfolder).mkdir(parents=True, exist_ok=True)
    source.write(folder / source.subfolder)

    def add(kind: str, config_file: str, config: dict[str, Any], weights: dict[str, Any]) -> None:
        path = folder / f"{len(entries)}_{kind}"
        entries.append((path.name, kind))
        write_json(path / config_file, config)
        if weights:
            save_file(weights, path / "model.safetensors")

    dim = source.dim
    for token_layer, module in zip(traits.token_layers, encoder.token_layers, strict=True):
        config = token_layer.to_peer(dim, module)
        add(token_layer.aliases[0], token_layer.config_file, config, weights_of(module))
        dim = token_layer.dim_after(dim)
    if traits.pooling:
        add("Pooling", "config.json", _pooling_config(traits, dim), {})
        dim *= len(traits.pooling)
    for layer, module in zip(traits.layers, encoder.layers, strict=True):
        add(layer.aliases[0], layer.config_file, layer.to_peer(dim, module), weights_of(module))
        dim = layer.dim_after(dim)
    write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(entries)
        ],
    )
    write_json(folder / "config_sentence_transformers.json", st_settings(traits))


def _pooling_config(traits: ModelConfig, token_dim: int) -> dict[str, Any]:
    """Flags that every version reads, and `pooling_mode` for an order of several modes that flags can't say."""
    config: dict[str, Any] = {"word_embedding_dimension": token_dim}
    config |= {pooling.st_flag: mode in traits.pooling for mode, pooling in POOLINGS.items()}
    config["include_prompt"] = traits.include_prompt
    in_flag_order = tuple(mode for mode in POOLINGS if mode in traits.pooling)
    if in_flag_order != traits.pooling:
        config["pooling_mode"] = [POOLINGS[mode].st_name if mode in POOLINGS else mode for mode in traits.pooling]
    return config


def st_settings(traits: ModelConfig) -> dict[str, Any]:
    """config_sentence_transformers.json. The version is the oldest that knows every key here, so that none warns."""
    import transformers

    settings: dict[str, Any] = {
        "__version__": {
            "sentence_transformers": "3.0.0",
            "transformers": transformers.__version__,
            "pytorch": torch.__version__,
        },
        "model_type": "SentenceTransformer",
        "prompts": traits.prompts,
        "default_prompt_name": traits.default_prompt,
        "similarity_fn_name": traits.similarity,
    }
    return settings | ({"truncate_dim": traits.truncate_dim} if traits.truncate_dim is not None else {})
