"""From what a recipe says about the model to an encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from stfit.encoder.base import ALL_FILES, locate
from stfit.encoder.dropout import DROPOUT_SETTING
from stfit.encoder.encoder import Encoder, Traits
from stfit.encoder.folder import Found, read_folder
from stfit.encoder.inference import fused_works
from stfit.encoder.layout import choose_layout
from stfit.encoder.model_json import count_positions, is_sentence_model
from stfit.encoder.scratch import build_scratch
from stfit.encoder.settings import Model, Scratch
from stfit.encoder.sound import other_shapes, require_right_weights, require_sound
from stfit.encoder.tokens import Tokens, append_eos, load_tokenizer, longest_sequence, lower_case
from stfit.errors import ModelError

log = logging.getLogger("stfit")


def load_encoder(folder: str | Path, device: str = "cpu") -> Encoder:
    """The model in a folder (or of a Hub id), as it was saved."""
    return build_encoder(Model(base=str(folder)), device=device)


def build_encoder(settings: Model, texts: Callable[[], Iterable[str]] | None = None, device: str = "cpu") -> Encoder:
    """The encoder that `settings` describe, on `device`.

    `texts` gives the training texts, from which a scratch base learns its vocabulary. New weights are drawn from
    torch's global generator. Raises ModelError where the base can't serve, HubError where it can't be fetched.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if isinstance(settings.base, Scratch):
        if texts is None:
            raise ModelError("a scratch base needs training texts to learn its vocabulary from")
        backbone, tokenizer = build_scratch(settings.base, texts())
        backbone.to(getattr(torch, settings.precision))
        set_dropout(backbone.config, settings.dropout)
        found = None
    else:
        folder = locate(settings.base, settings.revision, ALL_FILES)
        require_sound(folder)
        found = read_folder(folder) if is_sentence_model(folder) else None
        transformer = found.transformer if found else folder
        backbone = load_backbone(transformer, settings)
        tokenizer = load_tokenizer(transformer)
    traits = choose_traits(settings, found, backbone.config)
    tokens = build_tokens(tokenizer, settings, found, traits, backbone.config)
    backbone.to(torch.device(device))  # type: ignore[arg-type]  # the wrapper that transformers puts around it loses its type
    layout = choose_layout(backbone, settings.attention)
    encoder = Encoder(backbone, tokens, traits, layout)
    encoder.fused = settings.attention != "padded" and fused_works(backbone, layout.forward)
    if found and settings.layers is None:
        for layer, weights in zip(encoder.layers, found.layer_weights, strict=True):
            load_layer(layer, weights, folder)
    return encoder


def load_backbone(folder: Path, settings: Model) -> PreTrainedModel:
    """The transformer of a checkpoint, in the recipe's precision, with every weight it needs."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        set_dropout(config, settings.dropout)
        config.use_cache = False  # a decoder would fill a key-value cache that nobody reads
        backbone, loading = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, settings.precision),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever transformers stumbles over in a file that says anything
        if "ignore_mismatched_sizes" in str(error):
            error = RuntimeError(f"weights of another shape: {shapes_other_than_meant(folder, config)}")
        raise ModelError(f"{folder}: can't be loaded as a text encoder: {error}") from error
    require_right_weights(backbone, loading, folder)
    checked: PreTrainedModel = backbone
    return checked


def shapes_other_than_meant(folder: Path, config: PretrainedConfig) -> str:
    """The weights that don't have the shapes of the config, which transformers only logs."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    return other_shapes(model.state_dict(), folder, model.base_model_prefix)


def set_dropout(config: PretrainedConfig, rate: float | None) -> None:
    """Give every dropout of a config the same rate; None leaves them."""
    if rate is None:
        return
    for name, value in list(vars(config).items()):
        if DROPOUT_SETTING.search(name) and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, rate)


def choose_traits(settings: Model, found: Found | None, config: PretrainedConfig) -> Traits:
    """What the recipe says, else what the base says, else the default for its kind."""
    base = found.traits if found else Traits(pooling=("last_token" if is_causal(config) else "mean",))
    traits = replace(
        base,
        layers=base.layers if settings.layers is None else settings.layers,
        prompts={**base.prompts, **settings.prompts},
        default_prompt=settings.default_prompt or base.default_prompt,
        similarity=settings.similarity or base.similarity,
        truncate_dim=settings.truncate_dim or base.truncate_dim,
    )
    if settings.pooling is not None:
        modes = [settings.pooling] if isinstance(settings.pooling, str) else settings.pooling
        traits = replace(traits, pooling=tuple(modes))
    if traits.default_prompt is not None and traits.default_prompt not in traits.prompts:
        raise ModelError(f"default_prompt `{traits.default_prompt}` is not one of the model's prompts")
    for what, old, new in (("pooling", base.pooling, traits.pooling), ("layers", base.layers, traits.layers)):
        if found and old != new:
            log.warning("the base's own %s (%s) is replaced by the recipe's (%s)", what, old, new)
    return traits


def is_causal(config: PretrainedConfig) -> bool:
    """Whether the checkpoint is a plain decoder, whose last token alone has seen the whole text."""
    architectures: list[str] = getattr(config, "architectures", None) or []
    return bool(architectures and architectures[0].endswith("ForCausalLM") and getattr(config, "is_causal", True))


def build_tokens(
    tokenizer: PreTrainedTokenizerBase, settings: Model, found: Found | None, traits: Traits, config: PretrainedConfig
) -> Tokens:
    """The tokenizer with its limit, lower-casing and end-of-sequence token as the base and the recipe say."""
    if found and found.lower_case:
        lower_case(tokenizer)
    wants_eos = "last_token" in traits.pooling and is_decoder(config) and found is None
    if settings.append_eos is True or (settings.append_eos == "auto" and wants_eos):
        append_eos(tokenizer)
    positions = position_limit(config)
    limit = (
        settings.max_seq_length or (found.max_seq_length if found else None) or longest_sequence(tokenizer, positions)
    )
    if positions and limit > positions:
        raise ModelError(f"max_seq_length {limit} is more than the {positions} positions of the base")
    return Tokens(tokenizer, limit)


def is_decoder(config: PretrainedConfig) -> bool:
    """Whether the transformer is of a decoder's kind (an encoder with last_token pooling has its own end token)."""
    return is_causal(config) or bool(getattr(config, "is_decoder", False))


def position_limit(config: PretrainedConfig) -> int | None:
    """Longest sequence that the position table holds; None where there is no such table."""
    return count_positions(config.to_dict())


def load_layer(layer: nn.Module, weights: dict[str, Any], folder: Path) -> None:
    """Fill one layer after pooling with the weights of the base."""
    try:
        layer.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{folder}: weights of a layer after pooling don't fit: {error}") from error
