"""What a base says of itself in its small files: enough to check a recipe before weights are fetched or torch loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from stfit.encoder.config import Model
from stfit.encoder.folder.resolve import SMALL_FILES, locate
from stfit.encoder.folder.st_config import (
    ModelConfig,
    count_positions,
    is_st_model,
    read_folder,
    read_json,
    read_sentence_config,
)
from stfit.encoder.folder.validate import read_shapes, validate_folder, wrap_errors
from stfit.encoder.tokenizer import Tokenizer, WhitespaceTokenizer, load_word_tokens, untruncated_tokenizer

NO_LIMIT = 1_000_000
"""Tokenizers without a limit say some very large number."""


@dataclass(frozen=True)
class ModelInfo:
    """A base as far as its small files tell. Empty for one that is out of reach."""

    source: str = "Transformer"
    """What sentence-transformers calls what comes first in it."""
    is_random: bool = False
    """Whether it starts from nothing."""
    load_tokenizer: Callable[[], Tokenizer] | None = None
    """Loads its tokenizer, without its limit."""
    max_seq_length: int | None = None
    """Its own limit in tokens."""
    positions: int | None = None
    """Tokens that its position table has room for."""
    hidden_size: int | None = None
    """Size of what comes out of it for each token, or for each text where nothing is pooled."""
    num_layers: int | None = None
    parameters: int | None = None
    """Weights, counted; None where they are not here yet."""
    config: ModelConfig | None = None
    """What a sentence-transformers model says of itself; None for a plain encoder."""

    @property
    def output_dim(self) -> int | None:
        """Size of the embeddings that it gives as it is; None where it is out of reach."""
        if self.hidden_size is None:
            return None
        dim = (self.config or ModelConfig(pooling=("mean",))).embedding_dim(self.hidden_size)
        return min(dim, self.config.truncate_dim or dim) if self.config else dim

    @property
    def prompts(self) -> dict[str, str]:
        """Its own prompts."""
        return self.config.prompts if self.config else {}

    @property
    def default_prompt(self) -> str | None:
        """The name of its own default prompt."""
        return self.config.default_prompt if self.config else None


def inspect_model(settings: Model) -> ModelInfo:
    """Look at the base of a recipe.

    Raises ModelError where there is none, or it is damaged; HubError where the Hub can't be asked.
    """
    base = settings.base
    if not isinstance(base, str):
        size, parameters = base.size()
        limit = 512 if base.st_name == "Transformer" else None
        return ModelInfo(base.st_name, True, None, limit, limit, size, base.num_layers, parameters)
    return inspect_folder(locate(base, settings.revision, SMALL_FILES))


def inspect_folder(folder: Path) -> ModelInfo:
    """A local model folder, plain or of sentence-transformers."""
    with wrap_errors(folder):
        validate_folder(folder)
        if not is_st_model(folder):
            return _glance_at_transformer(folder)
        found = read_folder(folder)
        return replace(INSPECTORS[found.source](found.folder), source=found.source, config=found.config)


def _glance_at_transformer(folder: Path) -> ModelInfo:
    """The folder of a transformer's weights, config and tokenizer."""
    config = read_json(folder / "config.json", {})
    positions = count_positions(config)
    longest = read_json(folder / "tokenizer_config.json", {}).get("model_max_length")
    limits = [limit for limit in (longest, positions) if limit and limit < NO_LIMIT]
    tokenizer = folder / "tokenizer.json"
    return ModelInfo(
        load_tokenizer=partial(untruncated_tokenizer, tokenizer) if tokenizer.is_file() else None,
        max_seq_length=read_sentence_config(folder).get("max_seq_length") or min(limits, default=512),
        positions=positions,
        hidden_size=_first_of(config, "hidden_size", "dim", "d_model"),
        num_layers=_first_of(config, "num_hidden_layers", "n_layers", "num_layers"),
        parameters=_count_weights(folder),
    )


def _glance_at_table(folder: Path) -> ModelInfo:
    """The folder of a static table."""
    truncation = read_json(folder / "tokenizer.json").get("truncation") or {}
    return ModelInfo(
        load_tokenizer=partial(untruncated_tokenizer, folder / "tokenizer.json", special_tokens=False),
        max_seq_length=truncation.get("max_length"),
        **_table_of(folder),
    )


def _table_of(folder: Path) -> dict[str, Any]:
    """Sizes of a table of vectors."""
    dim = next((shape[1] for shape in read_shapes(folder).values() if len(shape) == 2), None)
    return {"hidden_size": dim, "num_layers": 0, "parameters": _count_weights(folder)}


def _glance_at_words(folder: Path) -> ModelInfo:
    """The folder of word embeddings."""
    limit = read_json(folder / "wordembedding_config.json").get("max_seq_length", NO_LIMIT)
    return ModelInfo(
        load_tokenizer=partial(load_word_tokens, folder),
        max_seq_length=limit if limit < NO_LIMIT else None,
        **_table_of(folder),
    )


def _glance_at_counts(folder: Path) -> ModelInfo:
    """The folder of a bag of words."""
    words = read_json(folder / "config.json").get("vocab") or []
    return ModelInfo(
        load_tokenizer=partial(WhitespaceTokenizer, words), hidden_size=len(set(words)), num_layers=0, parameters=0
    )


INSPECTORS: dict[str, Callable[[Path], ModelInfo]] = {
    "Transformer": _glance_at_transformer,
    "StaticEmbedding": _glance_at_table,
    "WordEmbeddings": _glance_at_words,
    "BoW": _glance_at_counts,
}


def _first_of(config: dict[str, Any], *names: str) -> int | None:
    """The first setting that a config has; families name the same thing differently."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _count_weights(folder: Path) -> int | None:
    """Numbers in a folder's safetensors files; None where there are none, or they can't be read."""
    shapes = read_shapes(folder)
    return sum(map(prod, shapes.values())) if shapes else None
