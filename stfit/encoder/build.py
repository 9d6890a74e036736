"""Build an encoder from the `model` section of a recipe."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers.utils import logging as transformers_logging

from stfit.encoder.backbone import Backbone
from stfit.encoder.bases.registry import KINDS
from stfit.encoder.bases.transformer import load_transformer
from stfit.encoder.config import Model, unsupported_keys
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.files import load_weights
from stfit.encoder.folder.model_config import ModelConfig
from stfit.encoder.folder.resolve import ALL_FILES, is_st_model, locate
from stfit.encoder.folder.st_config import ModelFolder, read_folder
from stfit.encoder.folder.validate import validate_folder, wrap_errors
from stfit.encoder.kernels.fused_infer import fused_works
from stfit.encoder.lora import add_adapters
from stfit.encoder.prompts import with_built_in
from stfit.encoder.token_layers import LayerContext
from stfit.errors import ModelError

log = logging.getLogger("stfit")

Texts = Callable[[], Iterable[str]]


def load_encoder(folder: str | Path, device: str = "cpu") -> Encoder:
    return build_encoder(Model(base=str(folder)), device=device)


def build_encoder(model: Model, texts: Texts | None = None, device: str = "cpu") -> Encoder:
    """The encoder that `model` describes, on `device`; new weights are drawn from torch's global generator.

    `texts`: training texts for what is learned from them. Raises ModelError if the base can't be used, or HubError.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    backbone, base = _build_backbone(model, texts)
    config = _merge_config(model, base, backbone)
    dtype = getattr(torch, model.precision)
    backbone.module.to(device=torch.device(device), dtype=dtype)
    if model.lora is not None:
        add_adapters(backbone.module, model.lora)
    has_saved_token_layers = base is not None and model.token_layers is None
    token_layers, dim = nn.ModuleList(), backbone.dim
    for layer in config.token_layers:
        token_layers.append(layer.build(LayerContext(backbone, dim, None if has_saved_token_layers else texts)))
        dim = layer.dim_after(dim)
    token_layers.to(device=torch.device(device), dtype=dtype)
    layout = backbone.choose_layout(model.attention)
    encoder = Encoder(backbone, config, token_layers, layout)
    encoder.fused = layout.name in ("packed", "fused") and fused_works(backbone.module, layout.forward)
    if base and model.token_layers is None:
        _load_all(encoder.token_layers, base.token_layer_folders)
    if base and model.layers is None:
        _load_all(encoder.layers, base.layer_folders)
    return encoder


def _build_backbone(model: Model, texts: Texts | None) -> tuple[Backbone, ModelFolder | None]:
    options = model.backbone_options
    if not isinstance(model.base, str):
        if texts is None:
            raise ModelError(f"a base of type {model.base.type} needs training texts to learn its vocabulary from")
        return model.base.build(options, texts()), None
    folder = locate(model.base, model.revision, ALL_FILES)
    with wrap_errors(folder):
        validate_folder(folder)
        if not is_st_model(folder):
            return load_transformer(folder, options), None
        base = read_folder(folder)
        if options.append_eos == "auto":  # its tokenizer was saved with the end token, or trained without
            options = replace(options, append_eos=False)
        return KINDS[base.st_name].load(base.backbone_folder, options), base


def _load_all(modules: nn.ModuleList, folders: list[Path]) -> None:
    for module, folder in zip(modules, folders, strict=True):
        load_weights(module, folder)


def _merge_config(model: Model, base: ModelFolder | None, backbone: Backbone) -> ModelConfig:
    """Each value from the recipe if set, else from the base, else the default of the backbone."""
    if unsupported := unsupported_keys(model, backbone.st_name):
        raise ModelError("; ".join(f"model.{key} {reason}" for key, reason in unsupported.items()))
    base_config = base.config if base else ModelConfig(pooling=(backbone.pooling,) if backbone.pooling else ())
    config = replace(
        base_config,
        pooling=model.modes or base_config.pooling,
        token_layers=base_config.token_layers if model.token_layers is None else model.token_layers,
        layers=base_config.layers if model.layers is None else model.layers,
        prompts={**base_config.prompts, **model.prompts},
        default_prompt=model.default_prompt or base_config.default_prompt,
        similarity=model.similarity or base_config.similarity,
        truncate_dim=model.truncate_dim or base_config.truncate_dim,
    )
    if config.default_prompt is not None and config.default_prompt not in with_built_in(config.prompts):
        raise ModelError(f"default_prompt `{config.default_prompt}` is not one of the model's prompts")
    for key in ("pooling", "token_layers", "layers"):
        old, new = getattr(base_config, key), getattr(config, key)
        if base and old != new:
            log.warning("the recipe's model.%s (%s) replaces the base's own (%s)", key, new, old)
    return config
