"""What a base says of itself in its small files: enough to check a recipe before weights are fetched or torch loads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from stfit.encoder.base import SMALL_FILES, locate
from stfit.encoder.model_json import (
    count_positions,
    is_sentence_model,
    read_json,
    read_modules,
    read_pooling,
    read_sentence_config,
    read_settings,
)
from stfit.encoder.settings import Model, Scratch
from stfit.encoder.sound import read_shapes, require_sound

NO_LIMIT = 1_000_000
"""Tokenizers without a limit say some very large number."""


@dataclass(frozen=True)
class Glance:
    """A base as far as its small files tell. Empty for a base that starts from scratch, or is out of reach."""

    tokenizer: Path | None = None
    """Its tokenizer.json."""
    max_seq_length: int | None = None
    """Its own limit in tokens."""
    positions: int | None = None
    """Tokens that its position table has room for."""
    hidden_size: int | None = None
    num_layers: int | None = None
    parameters: int | None = None
    """Weights, counted; None where they are not here yet."""
    pooling: list[str] | None = None
    """Modes of a sentence-transformers model; None for a plain encoder."""
    layers: list[str] | None = None
    """Class names of its modules after pooling."""
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def glance_at(settings: Model) -> Glance:
    """Look at the base of a recipe.

    Raises ModelError where there is none, or it is damaged; HubError where the Hub can't be asked.
    """
    if isinstance(settings.base, Scratch):
        size, layers = settings.base.hidden_size, settings.base.num_layers
        embedded = (settings.base.vocab_size + 512) * size
        return Glance(None, 512, 512, size, layers, embedded + layers * 12 * size * size)
    return glance_into(locate(settings.base, settings.revision, SMALL_FILES))


def glance_into(folder: Path) -> Glance:
    """A local model folder, plain or of sentence-transformers."""
    require_sound(folder)
    if not is_sentence_model(folder):
        return glance_at_transformer(folder)
    (_, transformer), (_, pooling), *layers = read_modules(folder)
    settings = read_settings(folder)
    return replace(
        glance_at_transformer(transformer),
        pooling=list(read_pooling(pooling)[0]),
        layers=[kind for kind, _ in layers],
        prompts=settings["prompts"],
        default_prompt=settings["default_prompt"],
    )


def glance_at_transformer(folder: Path) -> Glance:
    """The folder of a transformer's weights, config and tokenizer."""
    config = read_json(folder / "config.json", {})
    positions = count_positions(config)
    longest = read_json(folder / "tokenizer_config.json", {}).get("model_max_length")
    limits = [limit for limit in (longest, positions) if limit and limit < NO_LIMIT]
    tokenizer = folder / "tokenizer.json"
    return Glance(
        tokenizer if tokenizer.is_file() else None,
        read_sentence_config(folder).get("max_seq_length") or min(limits, default=512),
        positions,
        first_of(config, "hidden_size", "dim", "d_model"),
        first_of(config, "num_hidden_layers", "n_layers", "num_layers"),
        count_weights(folder),
    )


def first_of(config: dict[str, Any], *names: str) -> int | None:
    """The first setting that a config has; families name the same thing differently."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def count_weights(folder: Path) -> int | None:
    """Numbers in a folder's safetensors files; None where there are none, or they can't be read."""
    shapes = read_shapes(folder)
    return sum(map(prod, shapes.values())) if shapes else None
