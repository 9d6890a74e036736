"""A model folder that sentence-transformers loads as its own.

Read in every layout that it ever wrote, written in the oldest one that it still reads.

Nothing here is executed: what the JSON files say is read by model_json.py, weights come from safetensors only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import stfit.encoder.layers as choices
from stfit.encoder.encoder import Encoder, Traits, weights_of
from stfit.encoder.model_json import (
    POOLING_FLAGS,
    read_json,
    read_modules,
    read_pooling,
    read_sentence_config,
    read_settings,
)
from stfit.encoder.settings import PEER_POOLINGS
from stfit.encoder.sound import name_some, not_finite
from stfit.errors import ModelError


@dataclass(frozen=True)
class Found:
    """A model folder, read: where the transformer lies, what follows it, and its weights after pooling."""

    transformer: Path
    traits: Traits
    layer_weights: list[dict[str, torch.Tensor]]
    max_seq_length: int | None
    lower_case: bool


def read_folder(folder: Path) -> Found:
    """Read a sentence-transformers folder of any version.

    Raises ModelError for modules that stfit does not have, and for paths that lead outside the folder.
    """
    (_, transformer), (_, pooling), *layers = read_modules(folder)
    modes, include_prompt = read_pooling(pooling)
    built = [READERS[kind](path) for kind, path in layers]
    traits = Traits(modes, [layer for layer, _ in built], include_prompt, **read_settings(folder))
    config = read_sentence_config(transformer)
    return Found(
        transformer,
        traits,
        [weights for _, weights in built],
        config.get("max_seq_length"),
        bool(config.get("do_lower_case", False)),
    )


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; a pickle is refused by name."""
    if not path.is_file():
        pickled = path.with_name("pytorch_model.bin")
        more = f" (`{pickled.name}` is a pickle, which stfit never opens)" if pickled.exists() else ""
        raise ModelError(f"{path}: missing{more}")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: damaged: {error}") from error
    if broken := not_finite(weights.items()):
        raise ModelError(f"{path}: not finite: {name_some(broken)}")
    return weights


Read = tuple[choices.Layer, dict[str, torch.Tensor]]


def read_dense(folder: Path) -> Read:
    """A Dense module that works on the embedding."""
    config = read_json(folder / "config.json")
    names = {config.get(key, "sentence_embedding") for key in ("module_input_name", "module_output_name")}
    if names != {"sentence_embedding"} or config.get("use_residual"):
        raise ModelError(
            f"{folder}: a dense layer on {', '.join(sorted(map(str, names)))}, or with a residual, is not supported"
        )
    torch_class = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    names_of_classes = {name: activation for activation, name in choices.ACTIVATIONS.items()}
    if torch_class not in names_of_classes:
        raise ModelError(f"{folder}: unknown activation {config['activation_function']}")
    spec = choices.Dense.model_validate(
        {
            "out_features": config["out_features"],
            "bias": config.get("bias", True),
            "activation": names_of_classes[torch_class],
        }
    )
    weights = read_weights(folder / "model.safetensors")
    return spec, {name.replace("linear.", "0."): tensor for name, tensor in weights.items()}


def read_normalize(folder: Path) -> Read:
    """Normalize has nothing to read: git does not even keep its empty folder."""
    return choices.Normalize(), {}


def read_layer_norm(folder: Path) -> Read:
    """A LayerNorm on the embedding."""
    weights = read_weights(folder / "model.safetensors")
    return choices.LayerNorm(), {name.removeprefix("norm."): tensor for name, tensor in weights.items()}


def read_dropout(folder: Path) -> Read:
    """A Dropout on the embedding."""
    return choices.Dropout(rate=float(read_json(folder / "config.json").get("dropout", 0.2))), {}


READERS = {"Dense": read_dense, "Normalize": read_normalize, "LayerNorm": read_layer_norm, "Dropout": read_dropout}


def write_folder(encoder: Encoder, folder: Path) -> None:
    """Write the model so that sentence-transformers 2.x to 6.x, and stfit, load it with the same embeddings."""
    folder.mkdir(parents=True, exist_ok=True)
    backbone, traits = encoder.backbone, encoder.traits
    backbone.save_pretrained(folder)
    encoder.tokens.save(folder)
    limit = encoder.tokens.max_seq_length
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    entries = [("", "Transformer"), ("1_Pooling", "Pooling")]
    pooling_folder = folder / "1_Pooling"
    write_json(pooling_folder / "config.json", pooling_config(traits, encoder.token_dim))
    dim = encoder.token_dim * len(traits.pooling)
    for index, (spec, module) in enumerate(zip(traits.layers, encoder.layers, strict=True), start=2):
        kind, config, weights = describe_layer(spec, module, dim)
        dim = spec.dim_after(dim)
        entries.append((f"{index}_{kind}", kind))
        layer_folder = folder / f"{index}_{kind}"
        write_json(layer_folder / "config.json", config)
        if weights:
            save_file(weights, layer_folder / "model.safetensors")
    write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(entries)
        ],
    )
    write_json(folder / "config_sentence_transformers.json", peer_settings(traits))


def pooling_config(traits: Traits, token_dim: int) -> dict[str, Any]:
    """Flags that every version reads, and `pooling_mode` for an order of several modes that flags can't say."""
    config: dict[str, Any] = {"word_embedding_dimension": token_dim}
    config |= {flag: mode in traits.pooling for mode, flag in POOLING_FLAGS.items()}
    config["include_prompt"] = traits.include_prompt
    in_flag_order = tuple(mode for mode in POOLING_FLAGS if mode in traits.pooling)
    if in_flag_order != traits.pooling:
        peer_names = {ours: peer for peer, ours in PEER_POOLINGS.items()}
        config["pooling_mode"] = [peer_names.get(mode, mode) for mode in traits.pooling]
    return config


def describe_layer(
    spec: choices.Layer, module: nn.Module, dim: int
) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    """A layer in sentence-transformers' words: class name, config, weights."""
    weights = weights_of(module)
    match spec:
        case choices.Dense():
            activation = type(module[1])  # type: ignore[index]
            config = {
                "in_features": dim,
                "out_features": spec.out_features,
                "bias": spec.bias,
                "activation_function": f"{activation.__module__}.{activation.__name__}",
            }
            return "Dense", config, {name.replace("0.", "linear."): tensor for name, tensor in weights.items()}
        case choices.LayerNorm():
            return "LayerNorm", {"dimension": dim}, {f"norm.{name}": tensor for name, tensor in weights.items()}
        case choices.Dropout():
            return "Dropout", {"dropout": spec.rate}, {}
        case choices.Normalize():
            return "Normalize", {}, {}


def peer_settings(traits: Traits) -> dict[str, Any]:
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


def write_json(path: Path, content: Any) -> None:
    """Indented JSON, its folder made on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
