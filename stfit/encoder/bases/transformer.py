"""A transformer as the source of token embeddings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

from stfit.encoder.backbone import Backbone
from stfit.encoder.bases.transformer_tokenizer import (
    TransformerTokenizer,
    append_eos,
    load_tokenizer,
    longest_sequence,
    lower_case,
)
from stfit.encoder.config import Model
from stfit.encoder.folder.st_config import count_positions, read_json, read_sentence_config
from stfit.encoder.folder.validate import other_shapes, require_no_code, require_right_weights, require_vectors
from stfit.encoder.kernels.dropout import DROPOUT_SETTING
from stfit.encoder.kernels.packing import choose_layout
from stfit.encoder.lora import merged_weights
from stfit.encoder.tokenizer import words_by_id
from stfit.errors import ModelError
from stfit.io.json_files import write_json


def load_transformer(folder: Path, settings: Model, plain: bool) -> Backbone:
    """The transformer in a folder; `plain` if nothing there says how it is pooled."""
    backbone, tokenizer, said = _load_backbone(folder, settings), load_tokenizer(folder), read_sentence_config(folder)
    table: Any = backbone.get_input_embeddings()
    require_vectors(words_by_id(tokenizer.get_vocab()), len(table.weight), folder)
    if said.get("do_lower_case"):
        lower_case(tokenizer)
    return build_transformer(backbone, tokenizer, settings, said.get("max_seq_length"), plain)


def build_transformer(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Model,
    max_seq_length: int | None = None,
    plain: bool = True,
) -> Backbone:
    """A transformer with its tokenizer; `max_seq_length` is what its folder says."""
    config = backbone.config
    pooling = "last_token" if _is_causal(config) else "mean"
    by_default = plain and _is_decoder(config) and "last_token" in (settings.modes or (pooling,))
    if by_default if settings.append_eos == "auto" else settings.append_eos:
        append_eos(tokenizer)
    tokens = TransformerTokenizer(
        tokenizer, _choose_limit(tokenizer, settings.max_seq_length or max_seq_length, config)
    )
    return Backbone(
        st_name="Transformer",
        module=backbone,
        tokenizer=tokens,
        dim=int(config.hidden_size),
        choose_layout=partial(choose_layout, backbone),
        write=partial(_write_transformer, backbone, tokens),
        pooling=pooling,
        num_layers=int(config.num_hidden_layers),
    )


def _write_transformer(backbone: PreTrainedModel, tokens: TransformerTokenizer, folder: Path) -> None:
    """Weights, config, tokenizer, and the limit where older versions look for it."""
    backbone.save_pretrained(folder, state_dict=merged_weights(backbone))
    tokens.save(folder)
    config = {"max_seq_length": tokens.max_seq_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", config)


def _load_backbone(folder: Path, settings: Model) -> PreTrainedModel:
    """The transformer of a checkpoint, in the recipe's precision, with every weight it needs."""
    require_no_code(read_json(folder / "config.json", {}), folder, CONFIG_MAPPING)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        set_dropout(config, settings.dropout)
        config.use_cache = False  # a decoder would fill a key-value cache that nobody reads
        config.output_hidden_states = False  # a layer that wants them says so
        backbone, loading = _text_encoder(config, folder).from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, settings.precision),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except ModelError:
        raise
    except Exception as error:  # whatever transformers stumbles over in a file that says anything
        if "ignore_mismatched_sizes" in str(error):
            error = RuntimeError(f"weights of another shape: {_shapes_other_than_meant(folder, config)}")
        raise ModelError(f"{folder}: can't be loaded as a text encoder: {error}") from error
    require_right_weights(backbone, loading, folder)
    checked: PreTrainedModel = backbone
    return checked


def _shapes_other_than_meant(folder: Path, config: PretrainedConfig) -> str:
    """The weights that don't have the shapes of the config, which transformers only logs."""
    with torch.device("meta"):
        model = _text_encoder(config, folder)(config)
    return other_shapes(model.state_dict(), folder, model.base_model_prefix)


def _text_encoder(config: PretrainedConfig, folder: Path) -> Any:
    """The class of the text encoder in a checkpoint: of T5 and its kin, that is the encoder alone.

    Raises ModelError where there is none.
    """
    known = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None) or MODEL_MAPPING.get(type(config), None)
    encoder: type[PreTrainedModel] | None = known[0] if isinstance(known, tuple) else known
    kind = f"a `{config.model_type}` model"
    if encoder is None:
        reason = f"transformers has no encoder of {kind}"
    elif encoder.main_input_name != "input_ids":
        reason = f"{kind} reads {encoder.main_input_name}, not text"
    elif parts := [name for name in config.sub_configs if name in ("vision_config", "audio_config")]:
        reason = f"{kind} is not of text alone: it has a {parts[0]}"
    elif config.is_encoder_decoder and not encoder.__name__.endswith("EncoderModel"):
        reason = f"{kind} is an encoder with a decoder, and transformers has no class of the encoder alone"
    else:
        return encoder
    raise ModelError(f"{folder}: can't be a text encoder: {reason}")


def set_dropout(config: PretrainedConfig, rate: float | None) -> None:
    """Give every dropout of a config the same rate; None leaves them."""
    if rate is None:
        return
    for name, value in list(vars(config).items()):
        if DROPOUT_SETTING.search(name) and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, rate)


def _is_causal(config: PretrainedConfig) -> bool:
    """Whether the checkpoint is a plain decoder, whose last token alone has seen the whole text."""
    architectures: list[str] = getattr(config, "architectures", None) or []
    return bool(architectures and architectures[0].endswith("ForCausalLM") and getattr(config, "is_causal", True))


def _choose_limit(tokenizer: PreTrainedTokenizerBase, wanted: int | None, config: PretrainedConfig) -> int:
    """Longest sequence in tokens. Raises ModelError where more is wanted than there are positions."""
    positions = position_limit(config)
    limit = wanted or longest_sequence(tokenizer, positions)
    if positions and limit > positions:
        raise ModelError(f"max_seq_length {limit} is more than the {positions} positions of the base")
    return limit


def _is_decoder(config: PretrainedConfig) -> bool:
    """Whether the transformer is of a decoder's kind (an encoder with last_token pooling has its own end token)."""
    return _is_causal(config) or bool(getattr(config, "is_decoder", False))


def position_limit(config: PretrainedConfig) -> int | None:
    """Longest sequence that the position table holds; None where there is no such table."""
    return count_positions(config.to_dict())
