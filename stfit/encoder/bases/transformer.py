"""A pretrained transformer, or one that was just initialized, as the backbone."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import normalizers

from stfit.encoder.backbone import Backbone, BackboneOptions
from stfit.encoder.bases.sentence_bert_config import read_sentence_bert_config, write_sentence_bert_config
from stfit.encoder.bases.transformer_tokenizer import (
    TransformerTokenizer,
    append_eos,
    has_tokenizer_files,
    load_tokenizer,
    own_limit,
    reject_token_types,
    untruncated_by_class,
)
from stfit.encoder.folder.files import (
    name_some,
    pickles,
    read_json,
    read_pickled_weights,
    read_shapes,
    wrapper_prefix,
)
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.folder.resolve import ALL_FILES, SMALL_FILES, locate_adapter_base
from stfit.encoder.folder.validate import require_right_weights, require_vectors, require_weights, validate_folder
from stfit.encoder.lora import merge_adapter, merged_weights
from stfit.encoder.tokenizer import FileTokenizer, untruncated_tokenizer
from stfit.errors import ModelError
from stfit.io.json_files import write_json
from stfit.lazy import Tensor, lazy, torch

if TYPE_CHECKING:
    import transformers
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from stfit.encoder.bases import meta_init, transformer_config
    from stfit.encoder.kernels import dropout, packing
else:
    transformers = lazy("transformers")
    meta_init = lazy("stfit.encoder.bases.meta_init")
    transformer_config = lazy("stfit.encoder.bases.transformer_config")
    dropout, packing = lazy("stfit.encoder.kernels.dropout"), lazy("stfit.encoder.kernels.packing")

log = logging.getLogger("stfit")

ST_NAME = "Transformer"

ROBERTA_FAMILY = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "roberta-prelayernorm",
    "longformer",
    "data2vec-text",
    "ibert",
)
"""Model types that number positions from pad_token_id + 1, so that their position table has that many unused rows."""

PROJECTED = {"opt": ("word_embed_proj_dim",), "embedding_gemma2_text": ("embedding_dim",)}
"""Model type -> key of the size to which it projects its token embeddings."""

MAX_CHECKED_PARAMETERS = 5 * 10**8
"""Of a larger model, a check does not try whether it makes token embeddings: that takes seconds."""

CAUSAL_HEADS = ("ForCausalLM", "LMHeadModel")  # the second is GPT's and GPT-2's


def load_transformer(folder: Path, options: BackboneOptions) -> Backbone:
    base = locate_adapter_base(folder, ALL_FILES)
    if base is None:
        module = _load_module(folder, options)
    else:
        validate_folder(base)
        # What is merged has to be read, even if only names and shapes are asked for.
        module = merge_adapter(_load_module(base, replace(options, read_weights=True)), folder)
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(folder if base is None or has_tokenizer else base, options.append_eos is not False)
    reject_token_types(tokenizer, folder)
    st_config = read_sentence_bert_config(folder)
    tokenizer.truncation_side = st_config.get("truncation_side", tokenizer.truncation_side)
    if st_config.get("do_lower_case"):  # old sentence-transformers models
        backend = tokenizer.backend_tokenizer
        steps = [normalizers.Lowercase()] + ([backend.normalizer] if backend.normalizer is not None else [])
        backend.normalizer = normalizers.Sequence(steps)
    backbone = build_transformer(module, tokenizer, options, st_config.get("max_seq_length"))
    embeddings: Any = module.get_input_embeddings()
    require_vectors(backbone.tokenizer, len(embeddings.weight), folder)
    return backbone


def build_transformer(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    options: BackboneOptions,
    max_seq_length: int | None = None,
) -> Backbone:
    """A transformer with its tokenizer; `max_seq_length` is the limit in its folder."""
    config, is_causal = module.config, _is_causal(module.config)
    sizes = getattr(config, "encoder", config)  # T5Gemma has a config of its own for the encoder
    pooling = "last_token" if is_causal else "mean"
    is_decoder = is_causal or getattr(config, "is_decoder", False)
    is_eos_pooled = is_decoder and "last_token" in (options.pooling or (pooling,))
    if options.append_eos is True or (options.append_eos == "auto" and is_eos_pooled):
        append_eos(tokenizer)
    positions = count_positions(config.to_dict())
    limit = max_seq_length or own_limit(int(tokenizer.model_max_length), positions)
    if options.max_seq_length and options.max_seq_length > (positions or options.max_seq_length):
        raise ModelError(f"max_seq_length {options.max_seq_length} exceeds the {positions} positions of the base")
    if positions and not options.max_seq_length and limit > positions:
        log.warning("the base's own max_seq_length, %d, exceeds its %d positions, which are used", limit, positions)
        limit = positions
    transformer_tokenizer = TransformerTokenizer(tokenizer, options.max_seq_length or limit)
    is_run = options.read_weights or module.num_parameters() <= MAX_CHECKED_PARAMETERS
    return Backbone(
        st_name=ST_NAME,
        module=module,
        tokenizer=transformer_tokenizer,
        dim=_token_dim(module) if is_run else int(sizes.hidden_size),
        choose_layout=partial(packing.choose_layout, module),
        write=partial(_write, module, transformer_tokenizer),
        pooling=pooling,
        num_layers=int(sizes.num_hidden_layers),
    )


def _token_dim(module: PreTrainedModel) -> int:
    """Size of a token embedding, which some models project to another one than `hidden_size`.

    Raises ModelError if the model makes no token embeddings from token ids alone.
    """
    ids = torch.tensor([[1, 2] * 4], device=module.device)
    was_training = module.training
    try:
        with torch.no_grad():
            output = module.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
        return int(output.last_hidden_state.shape[2])
    except Exception as error:  # a model raises anything
        raise ModelError(
            f"a `{module.config.model_type}` model can't be used as a text encoder: it makes no token embeddings from "
            f"token ids alone ({error})"
        ) from error
    finally:
        module.train(was_training)


def _write(module: PreTrainedModel, tokenizer: TransformerTokenizer, folder: Path) -> None:
    module.save_pretrained(folder, state_dict=merged_weights(module))
    keys = transformer_config.rope_keys(module.config)
    write_json(folder / "config.json", read_json(folder / "config.json") | keys)
    tokenizer.save(folder)
    write_sentence_bert_config(folder, tokenizer.max_seq_length)


def _load_module(folder: Path, options: BackboneOptions) -> PreTrainedModel:
    content = read_json(folder / "config.json", {})
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        set_dropout(config, options.dropout)
        if config.model_type == "t5gemma":
            config.is_encoder_decoder = False  # its class for the encoder alone asks for that
        if "flash" in str(config._attn_implementation):  # of the machine that wrote the folder
            config._attn_implementation = None
        config.use_cache = False  # a decoder would fill a key-value cache that is never read
        config.return_dict, config.output_hidden_states, config.chunk_size_feed_forward = True, False, 0
        encoder = _text_encoder_class(config, folder)
        require_weights(folder)
        transformer_config.check_unread_keys(content, config, encoder, folder)
        weights = _read_weights(folder, options)
        wrapper = wrapper_prefix(weights or read_shapes(folder), f"{encoder.base_model_prefix}.")
        if wrapper:
            log.info("%s: the names of its weights begin with %s, which is left out", folder, wrapper)
        with meta_init.quick_meta_init():
            module, loading = encoder.from_pretrained(
                folder if weights is None else None,
                config=config,
                state_dict=weights and {name.removeprefix(wrapper): weight for name, weight in weights.items()},
                key_mapping={f"^{re.escape(wrapper)}": ""} if wrapper and weights is None else None,
                dtype=getattr(torch, options.precision),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except ModelError:
        raise
    except Exception as error:  # transformers raises anything for a damaged file
        if "ignore_mismatched_sizes" in str(error):
            error = RuntimeError(f"weights of the wrong shape: {_list_wrong_shapes(folder, config)}")
        raise ModelError(f"{folder}: can't be loaded as a text encoder: {error}") from error
    require_right_weights(module, loading, folder)
    if options.read_weights:
        transformer_config.check_directions(content, module, folder)
    return module


def _read_weights(folder: Path, options: BackboneOptions) -> dict[str, Tensor] | None:
    """The weights that transformers does not read itself: those of a pickle, and those whose values are not read.

    The latter are zeros that take no memory, whatever the shape.
    """
    shapes = read_shapes(folder)
    if options.read_weights:
        return read_pickled_weights(folder) if pickles(folder) and not shapes else None
    if not shapes:
        shapes = {name: tuple(weight.shape) for name, weight in read_pickled_weights(folder, "meta").items()}
    zero = torch.zeros((), dtype=getattr(torch, options.precision))
    return {name: zero.expand(shape) for name, shape in shapes.items()}


def _list_wrong_shapes(folder: Path, config: PretrainedConfig) -> str:
    with torch.device("meta"):
        module = _text_encoder_class(config, folder)(config)
    shapes, wrong = read_shapes(folder), []
    for name, tensor in module.state_dict().items():
        shape = shapes.get(name, shapes.get(f"{module.base_model_prefix}.{name}"))  # the prefix of one with a head
        if shape not in (None, tuple(tensor.shape)):
            wrong.append(f"{name} {list(shape)} instead of {list(tensor.shape)}")
    return name_some(wrong)


def _text_encoder_class(config: PretrainedConfig, folder: Path) -> Any:
    """The class of the text encoder in a checkpoint; for T5 and similar models, that is the encoder alone."""
    text_encoders, models = transformers.MODEL_FOR_TEXT_ENCODING_MAPPING, transformers.MODEL_MAPPING
    entry = text_encoders.get(type(config), None) or models.get(type(config), None)
    encoder: type[PreTrainedModel] | None = entry[0] if isinstance(entry, tuple) else entry
    kind = f"a `{config.model_type}` model"
    if encoder is None:
        reason = f"transformers has no encoder of {kind}"
    elif encoder.main_input_name != "input_ids":
        reason = f"{kind} reads {encoder.main_input_name}, not text"
    elif parts := [name for name in config.sub_configs if name in ("vision_config", "audio_config")]:
        reason = f"{kind} is not a text-only model: it has a {parts[0]}"
    elif config.is_encoder_decoder and not encoder.__name__.endswith("EncoderModel"):
        reason = f"{kind} is an encoder-decoder, and transformers has no class for its encoder alone"
    else:
        return encoder
    raise ModelError(f"{folder}: can't be used as a text encoder: {reason}")


def set_dropout(config: PretrainedConfig, rate: float | None) -> None:
    if rate is None:
        return
    for name, value in list(vars(config).items()):
        if dropout.DROPOUT_SETTING.search(name) and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, rate)


def _is_causal(config: PretrainedConfig) -> bool:
    """Whether the checkpoint is a plain decoder, so that only the last token attends to the whole text."""
    architectures: list[str] = getattr(config, "architectures", None) or [""]
    is_decoder = architectures[0].endswith(CAUSAL_HEADS) and not architectures[0].endswith("WithLMHeadModel")
    return bool(is_decoder and getattr(config, "is_causal", True))


def count_positions(config: dict[str, Any]) -> int | None:
    """Maximum length that the position table of a config.json allows; None without such a table."""
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(positions, int) or positions <= 0:
        return None
    padding = config.get("pad_token_id", 1) or 0
    return positions - (padding + 1 if config.get("model_type") in ROBERTA_FAMILY else 0)


def inspect_transformer(folder: Path) -> ModelInfo:
    if base := locate_adapter_base(folder, SMALL_FILES):
        validate_folder(base)
        limit = read_sentence_bert_config(folder).get("max_seq_length")
        info = inspect_transformer(base)
        return replace(info, max_seq_length=limit or info.max_seq_length)
    require_weights(folder)
    config = read_json(folder / "config.json", {})
    config |= config.get("encoder") or {}  # T5Gemma's
    positions = count_positions(config)
    tokenizer_limit = read_json(folder / "tokenizer_config.json", {}).get("model_max_length")
    limit = read_sentence_bert_config(folder).get("max_seq_length") or own_limit(tokenizer_limit, positions)
    shapes = read_shapes(folder)
    return ModelInfo(
        ST_NAME,
        load_tokenizer=_choose_loader(folder),
        max_seq_length=min(limit, positions or limit),
        positions=positions,
        hidden_size=_first_int(config, *PROJECTED.get(config.get("model_type"), ()), "hidden_size", "dim", "d_model"),
        num_layers=_first_int(config, "num_hidden_layers", "n_layers", "num_layers"),
        parameters=sum(map(prod, shapes.values())) if shapes else None,
        shapes=shapes,
        model_type=config.get("model_type"),
        num_heads=_first_int(config, "num_attention_heads", "n_heads", "num_heads"),
    )


def _choose_loader(folder: Path) -> Callable[[], FileTokenizer] | None:
    """How to load the tokenizer to count tokens; None if its files have not been downloaded."""
    if (folder / "tokenizer.json").is_file():
        return partial(untruncated_tokenizer, folder / "tokenizer.json")
    return partial(untruncated_by_class, folder) if has_tokenizer_files(folder) else None


def _first_int(config: dict[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)
