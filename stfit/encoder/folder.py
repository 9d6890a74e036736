"""A model folder that sentence-transformers loads as its own.

Read in every layout that it ever wrote, written in the oldest one that it still reads.

Nothing here is executed: module types are looked up in a table by their last part, weights come from safetensors only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import stfit.encoder.layers as choices
from stfit.encoder.encoder import Encoder, Traits, weights_of
from stfit.errors import ModelError

POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
    "last_token": "pooling_mode_lasttoken",
}
"""Our mode -> sentence-transformers' flag, in the order in which it concatenates the modes whose flags are set."""

PEER_MODES = {"mean_sqrt_len_tokens": "mean_sqrt_len", "weightedmean": "weighted_mean", "lasttoken": "last_token"}

TRANSFORMER_CONFIGS = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
"""Where sentence-transformers keeps max_seq_length; the names after the first are of its 0.x versions."""

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class Found:
    """A model folder, read: where the transformer lies, what follows it, and its weights after pooling."""

    transformer: Path
    traits: Traits
    layer_weights: list[dict[str, torch.Tensor]]
    max_seq_length: int | None
    lower_case: bool


def is_sentence_model(folder: Path) -> bool:
    """Whether the folder says how to pool, or is a plain transformer checkpoint."""
    return (folder / "modules.json").is_file()


def read_json(path: Path) -> Any:
    """A JSON file of a model folder; ModelError names it where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON: {error}") from error


def read_folder(folder: Path) -> Found:
    """Read a sentence-transformers folder of any version.

    Raises ModelError for modules that stfit does not have, and for paths that lead outside the folder.
    """
    modules = [(kind_of(entry, folder), inside(folder, entry.get("path", ""))) for entry in module_entries(folder)]
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelError(
            f"{folder}: starts with {' then '.join(kinds[:2])}; stfit reads a Transformer followed by a Pooling"
        )
    transformer = modules[0][1]
    pooling, include_prompt = read_pooling(modules[1][1])
    built = [READERS[kind](path) for kind, path in modules[2:]]
    settings = read_settings(folder)
    sentence_config: dict[str, Any] = next(
        (read_json(transformer / name) for name in TRANSFORMER_CONFIGS if (transformer / name).is_file()), {}
    )
    traits = Traits(pooling, [layer for layer, _ in built], include_prompt, **settings)
    return Found(
        transformer,
        traits,
        [weights for _, weights in built],
        sentence_config.get("max_seq_length"),
        bool(sentence_config.get("do_lower_case", False)),
    )


def module_entries(folder: Path) -> list[dict[str, Any]]:
    """The list in modules.json, in its order."""
    entries = read_json(folder / "modules.json")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{folder / 'modules.json'}: is not a list of modules")
    return sorted(entries, key=lambda entry: int(entry.get("idx", 0)))


def kind_of(entry: dict[str, Any], folder: Path) -> str:
    """Last part of a module's class path, when it is one that stfit knows."""
    path = str(entry.get("type", ""))
    kind = path.rpartition(".")[2]
    if not path.startswith("sentence_transformers.") or kind not in ("Transformer", "Pooling", *READERS):
        known = ", ".join(["Transformer", "Pooling", *READERS])
        raise ModelError(f"{folder / 'modules.json'}: module `{path}` is not one that stfit reads ({known})")
    return kind


def inside(folder: Path, relative: str) -> Path:
    """A path named in modules.json, which must stay inside the model folder."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative:
        raise ModelError(f"{folder / 'modules.json'}: path `{relative}` leads outside the model folder")
    return folder / pure


def read_pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    """Modes in order, and whether prompts are pooled."""
    config = read_json(folder / "config.json")
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [PEER_MODES.get(mode, mode) for mode in ([named] if isinstance(named, str) else named)]
    else:
        modes = [mode for mode, flag in POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    unknown = [mode for mode in modes if mode not in POOLING_FLAGS]
    if unknown:
        raise ModelError(f"{folder / 'config.json'}: unknown pooling {', '.join(map(str, unknown))}")
    return tuple(modes), bool(config.get("include_prompt", True))


def read_settings(folder: Path) -> dict[str, Any]:
    """Prompts, similarity and truncation as keyword arguments of Traits."""
    path = folder / "config_sentence_transformers.json"
    config = read_json(path) if path.is_file() else {}
    prompts = {name: text for name, text in (config.get("prompts") or {}).items() if text}
    default_prompt = config.get("default_prompt_name")
    if default_prompt is not None and default_prompt not in (config.get("prompts") or {}):
        raise ModelError(f"{path}: default_prompt_name `{default_prompt}` is not one of its prompts")
    similarity = config.get("similarity_fn_name") or "cosine"
    return {
        "prompts": prompts,
        "default_prompt": default_prompt if default_prompt in prompts else None,  # an empty prompt changes nothing
        "similarity": similarity if similarity in SIMILARITIES else "cosine",
        "truncate_dim": config.get("truncate_dim"),
    }


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; a pickle is refused by name."""
    if not path.is_file():
        pickled = path.with_name("pytorch_model.bin")
        more = f" (`{pickled.name}` is a pickle, which stfit never opens)" if pickled.exists() else ""
        raise ModelError(f"{path}: missing{more}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: damaged: {error}") from error


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
        peer_names = {ours: peer for peer, ours in PEER_MODES.items()}
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
