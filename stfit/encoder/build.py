"""From what a recipe says about the model to an encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers.utils import logging as transformers_logging

from stfit.encoder.backbone import Backbone
from stfit.encoder.bases.static_embeddings import load_static, load_word_counts, load_words
from stfit.encoder.bases.transformer import load_transformer
from stfit.encoder.config import Model, unsupported_keys
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import ALL_FILES, locate
from stfit.encoder.folder.st_config import ModelConfig, ModelFolder, is_st_model, read_folder
from stfit.encoder.folder.validate import validate_folder, wrap_errors
from stfit.encoder.folder.weights import load_weights
from stfit.encoder.kernels.fused_infer import fused_works
from stfit.encoder.lora import add_adapters
from stfit.encoder.token_layers import LayerContext
from stfit.errors import ModelError

log = logging.getLogger("stfit")

Texts = Callable[[], Iterable[str]]

LOADERS: dict[str, Callable[[Path, Model], Backbone]] = {
    "Transformer": partial(load_transformer, plain=False),
    "WordEmbeddings": load_words,
    "StaticEmbedding": load_static,
    "BoW": load_word_counts,
}
"""What comes first in a model folder -> how it is read."""


def load_encoder(folder: str | Path, device: str = "cpu") -> Encoder:
    """The model in a folder (or of a Hub id), as it was saved."""
    return build_encoder(Model(base=str(folder)), device=device)


def build_encoder(settings: Model, texts: Texts | None = None, device: str = "cpu") -> Encoder:
    """The encoder that `settings` describe, on `device`.

    `texts` gives the training texts, from which a base that starts from nothing learns its vocabulary. New weights are
    drawn from torch's global generator. Raises ModelError where the base can't serve, HubError where it can't be
    fetched.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    source, found = _build_source(settings, texts)
    traits = _choose_traits(settings, found, source)
    place = {"device": torch.device(device), "dtype": getattr(torch, settings.precision)}
    source.module.to(**place)
    if settings.lora is not None:
        add_adapters(source.module, settings.lora)
    token_layers = _build_token_layers(traits, source, None if found and settings.token_layers is None else texts)
    token_layers.to(**place)
    layout = source.choose_layout(settings.attention)
    encoder = Encoder(source, traits, token_layers, layout)
    encoder.fused = layout.name in ("packed", "fused") and fused_works(source.module, layout.forward)
    if found and settings.token_layers is None:
        _load_all(encoder.token_layers, found.token_layer_folders)
    if found and settings.layers is None:
        _load_all(encoder.layers, found.layer_folders)
    return encoder


def _build_source(settings: Model, texts: Texts | None) -> tuple[Backbone, ModelFolder | None]:
    """What comes first in the model, and what its folder says of the rest, if it says something."""
    if not isinstance(settings.base, str):
        if texts is None:
            raise ModelError(f"a base of type {settings.base.type} needs training texts to learn its vocabulary from")
        return settings.base.build(settings, texts()), None
    folder = locate(settings.base, settings.revision, ALL_FILES)
    with wrap_errors(folder):
        validate_folder(folder)
        if not is_st_model(folder):
            return load_transformer(folder, settings, plain=True), None
        found = read_folder(folder)
        return LOADERS[found.source](found.folder, settings), found


def _build_token_layers(traits: ModelConfig, source: Backbone, texts: Texts | None) -> nn.ModuleList:
    """The layers before pooling, each upon the one before."""
    built, dim = nn.ModuleList(), source.dim
    for layer in traits.token_layers:
        built.append(layer.build(LayerContext(source, dim, texts)))
        dim = layer.dim_after(dim)
    return built


def _load_all(modules: nn.ModuleList, folders: list[Path]) -> None:
    """Fill layers with the weights of the base."""
    for module, folder in zip(modules, folders, strict=True):
        load_weights(module, folder)


def _choose_traits(settings: Model, found: ModelFolder | None, source: Backbone) -> ModelConfig:
    """What the recipe says, else what the base says, else the default for its kind."""
    if wrong := unsupported_keys(settings, source.st_name):
        raise ModelError("; ".join(f"model.{key} {message}" for key, message in wrong.items()))
    base = found.config if found else ModelConfig(pooling=(source.pooling,) if source.pooling else ())
    traits = replace(
        base,
        pooling=settings.modes or base.pooling,
        token_layers=base.token_layers if settings.token_layers is None else settings.token_layers,
        layers=base.layers if settings.layers is None else settings.layers,
        prompts={**base.prompts, **settings.prompts},
        default_prompt=settings.default_prompt or base.default_prompt,
        similarity=settings.similarity or base.similarity,
        truncate_dim=settings.truncate_dim or base.truncate_dim,
    )
    if traits.default_prompt is not None and traits.default_prompt not in traits.prompts:
        raise ModelError(f"default_prompt `{traits.default_prompt}` is not one of the model's prompts")
    for what in ("pooling", "token_layers", "layers"):
        old, new = getattr(base, what), getattr(traits, what)
        if found and old != new:
            log.warning("the base's own %s (%s) is replaced by the recipe's (%s)", what, old, new)
    return traits
