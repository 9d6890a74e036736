"""Build an encoder from the `model` section of a recipe."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from stfit.encoder.backbone import Backbone, BackboneOptions
from stfit.encoder.bases.registry import KINDS
from stfit.encoder.bases.transformer import load_transformer
from stfit.encoder.config import Model, unsupported_keys
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.files import load_weights, read_shapes
from stfit.encoder.folder.inspect import dropped_parts
from stfit.encoder.folder.model_config import ModelConfig
from stfit.encoder.folder.resolve import ALL_FILES, is_st_model, locate
from stfit.encoder.folder.st_config import ModelFolder, read_folder
from stfit.encoder.folder.validate import validate_folder, wrap_errors
from stfit.encoder.kernels.fused_infer import fused_works
from stfit.encoder.lora import add_adapters
from stfit.encoder.prompts import with_built_in
from stfit.encoder.quiet import quiet_transformers
from stfit.encoder.token_layers import LayerContext
from stfit.errors import ModelError, at_key
from stfit.progress import task

log = logging.getLogger("stfit")

Texts = Callable[[], Iterable[str]]


def load_encoder(folder: str | Path, device: str = "cpu") -> Encoder:
    """A model as its folder says; of a plain checkpoint, which says nothing of pooling, what is assumed."""
    path = locate(str(Model(base=str(folder)).base), None, ALL_FILES)
    encoder = build_encoder(Model(base=str(path.absolute())), device=device)
    if dropped := dropped_parts(path):
        pooling = ", ".join(encoder.config.pooling)
        log.warning("%s: %s; the embeddings are those of the transformer alone, pooled by %s", folder, dropped, pooling)
    return encoder


def build_encoder(
    model: Model, texts: Texts | None = None, device: str = "cpu", *, read_weights: bool = True
) -> Encoder:
    """The encoder that `model` describes, on `device`; new weights are drawn from torch's global generator.

    `texts`: training texts for what is learned from them. `read_weights`: see BackboneOptions. Raises ModelError if the
    base can't be used, or HubError.
    """
    options = replace(model.backbone_options, read_weights=read_weights)
    loading = task(f"loading {model.base}" if isinstance(model.base, str) else "building the model")
    with quiet_transformers(), loading:
        backbone, base = _build_backbone(model, texts, options)
    config = _merge_config(model, base, backbone)
    dtype = getattr(torch, model.precision)
    backbone.module.to(device=torch.device(device), dtype=dtype)
    if model.lora is not None:
        with at_key("lora"):
            add_adapters(backbone.module, model.lora)
    has_saved_token_layers = base is not None and model.token_layers is None
    token_layers, dim = nn.ModuleList(), backbone.dim
    for layer in config.token_layers:
        token_layers.append(layer.build(LayerContext(backbone, dim, None if has_saved_token_layers else texts)))
        dim = layer.dim_after(dim)
    token_layers.to(device=torch.device(device), dtype=dtype)
    if "last_token" in config.pooling and not getattr(backbone.tokenizer, "ends_texts", True):
        log.warning("the last token of a text is pooled, but nothing ends the texts: see `model.append_eos`")
    layout = backbone.choose_layout(model.attention if read_weights else "padded")  # the probes need weights
    encoder = Encoder(backbone, config, token_layers, layout)
    encoder.fused = layout.name in ("packed", "fused") and fused_works(backbone.module, layout.forward)
    if base:
        _load_layers("token_layers", model, encoder, base, base.token_layer_folders)
        _load_layers("layers", model, encoder, base, base.layer_folders)
    return encoder


def _build_backbone(model: Model, texts: Texts | None, options: BackboneOptions) -> tuple[Backbone, ModelFolder | None]:
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
        if options.append_eos == "auto":
            options = replace(options, append_eos="saved")
        return KINDS[base.st_name].load(base.backbone_folder, options), base


def _load_layers(key: str, model: Model, encoder: Encoder, base: ModelFolder, folders: list[Path]) -> None:
    """Load the weights of the base's own layers.

    If the recipe lists layers, those of the same type and shape at the same place keep them; the others start anew.
    """
    kept = []
    layers, base_layers = getattr(encoder.config, key), getattr(base.config, key)
    for layer, base_layer, module, folder in zip(layers, base_layers, getattr(encoder, key), folders, strict=False):
        shapes = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
        if getattr(model, key) is None:
            load_weights(module, folder)
        elif shapes and layer.type == base_layer.type and shapes == read_shapes(folder):
            load_weights(module, folder)
            kept.append(layer.type)
    if kept:
        log.info("model.%s: %s keeps the weights of the base", key, ", ".join(kept))


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
