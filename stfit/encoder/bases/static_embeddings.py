"""Tables of words or tokens as the source: one vector each, and no transformer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer as HFTokenizer
from torch import Tensor, nn

from stfit.encoder.backbone import Backbone
from stfit.encoder.bases.word_vectors import weigh
from stfit.encoder.config import Model
from stfit.encoder.folder.st_config import read_json
from stfit.encoder.folder.validate import require_vectors
from stfit.encoder.folder.weights import read_weights
from stfit.encoder.kernels.packing import Forward, Layout
from stfit.encoder.modules import WordCounts
from stfit.encoder.tokenizer import (
    PlainTokenizer,
    WhitespaceTokenizer,
    load_tokenizer_file,
    load_word_tokens,
    words_by_id,
)
from stfit.errors import ModelError
from stfit.io.json_files import write_json

WORD_TOKENIZER = "sentence_transformers.models.tokenizer.WhitespaceTokenizer.WhitespaceTokenizer"

NO_LIMIT = 1_000_000
"""What sentence-transformers says where words have no limit."""


def _forward_words(table: nn.Embedding, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    """Vectors [tokens, dim] of the words of all sequences, and the order in which these lie: their own."""
    ids_t = torch.from_numpy(np.concatenate(sequences).astype(np.int64)).to(table.weight.device)
    vectors: Tensor = table(ids_t)
    return vectors, np.arange(len(sequences))


def _forward_bags(bags: nn.EmbeddingBag | WordCounts, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    """One vector for each sequence, [sequences, dim], and their order."""
    ids = np.concatenate(sequences).astype(np.int64)
    lengths = np.array([len(sequence) for sequence in sequences])
    starts_r = torch.from_numpy(np.cumsum(lengths) - lengths).to(bags.weight.device)
    embedding_rd: Tensor = bags(torch.from_numpy(ids).to(bags.weight.device), starts_r)
    return embedding_rd, np.arange(len(sequences))


def _nothing_to_choose(forward: Forward) -> Callable[[str], Layout]:
    """Without attention every layout is the same."""
    return lambda _: Layout("auto", forward, "a table has no attention to lay out")


def load_static(folder: Path, settings: Model) -> Backbone:
    """A StaticEmbedding, also as model2vec writes it."""
    weights = read_weights(folder / "model.safetensors")
    table_vd = weights["embedding.weight"] if "embedding.weight" in weights else _unfold(weights, folder)
    tokenizer = load_tokenizer_file(folder / "tokenizer.json")
    require_vectors(words_by_id(tokenizer.get_vocab()), len(table_vd), folder)
    return build_static(table_vd, tokenizer, settings)


def _unfold(weights: dict[str, Tensor], folder: Path) -> Tensor:
    """A row for each token from model2vec's rows, which several tokens may share, and its weights of tokens."""
    if "embeddings" not in weights:
        raise ModelError(f"{folder}: model.safetensors holds no `embedding.weight`, and no `embeddings` of model2vec")
    table_vd = weights["embeddings"].float()
    if "mapping" in weights:
        table_vd = table_vd[weights["mapping"].long()]
    return table_vd * weights["weights"][:, None].float() if "weights" in weights else table_vd


def build_static(table_vd: Tensor, tokenizer: HFTokenizer, settings: Model) -> Backbone:
    """The mean of the vectors of a text's tokens; the limit of a recipe travels in tokenizer.json."""
    if settings.max_seq_length is not None:
        tokenizer.enable_truncation(settings.max_seq_length)
    tokens = PlainTokenizer(tokenizer)
    bags = nn.EmbeddingBag.from_pretrained(table_vd, freeze=False)
    return Backbone(
        st_name="StaticEmbedding",
        module=bags,
        tokenizer=tokens,
        dim=bags.embedding_dim,
        choose_layout=_nothing_to_choose(_forward_bags),
        write=partial(_write_static, bags, tokens),
        pooling=None,
    )


def _write_static(bags: nn.EmbeddingBag, tokens: PlainTokenizer, folder: Path) -> None:
    """Table and tokenizer."""
    save_file({"embedding.weight": bags.weight.detach().cpu().contiguous()}, folder / "model.safetensors")
    tokens.save(folder)


def load_words(folder: Path, settings: Model) -> Backbone:
    """WordEmbeddings over words between white space."""
    config = read_json(folder / "wordembedding_config.json")
    kind = str(config.get("tokenizer_class")).rpartition(".")[2]
    if kind != "WhitespaceTokenizer":
        why = " (which joins words to phrases with nltk, that stfit does without)" if kind == "PhraseTokenizer" else ""
        raise ModelError(f"{folder}: its words are made by a {kind}{why}; stfit reads those of a WhitespaceTokenizer")
    limit = settings.max_seq_length or config.get("max_seq_length") or NO_LIMIT
    tokens = load_word_tokens(folder, limit if limit < NO_LIMIT else None)
    weights = read_weights(folder / "model.safetensors")
    if "emb_layer.weight" not in weights:
        raise ModelError(f"{folder}: model.safetensors holds no `emb_layer.weight`")
    require_vectors(tokens.vocabulary(), len(weights["emb_layer.weight"]), folder)
    return build_words(weights["emb_layer.weight"].float(), tokens, bool(config.get("update_embeddings", False)))


def build_words(table_vd: Tensor, tokens: WhitespaceTokenizer, trained: bool) -> Backbone:
    """A vector for each word; `trained`: whether it moves in training."""
    table = nn.Embedding.from_pretrained(table_vd, freeze=not trained)
    return Backbone(
        st_name="WordEmbeddings",
        module=table,
        tokenizer=tokens,
        dim=table.embedding_dim,
        choose_layout=_nothing_to_choose(_forward_words),
        write=partial(_write_words, table, tokens),
    )


def _write_words(table: nn.Embedding, tokens: WhitespaceTokenizer, folder: Path) -> None:
    """Table, vocabulary, and what else sentence-transformers wants to know."""
    config = {
        "tokenizer_class": WORD_TOKENIZER,
        "update_embeddings": table.weight.requires_grad,
        "max_seq_length": tokens.max_seq_length or NO_LIMIT,
    }
    write_json(folder / "wordembedding_config.json", config)
    save_file({"emb_layer.weight": table.weight.detach().cpu().contiguous()}, folder / "model.safetensors")
    tokens.save(folder)


def load_word_counts(folder: Path, settings: Model) -> Backbone:
    """A BoW: its vocabulary and weights are all in its config."""
    config = read_json(folder / "config.json")
    if not isinstance(config.get("vocab"), list):
        raise ModelError(f"{folder / 'config.json'}: holds no `vocab`")
    words = list(dict.fromkeys(config["vocab"]))
    weights = weigh(words, config.get("word_weights") or {}, float(config.get("unknown_word_weight", 1)))
    return build_word_counts(words, weights, bool(config.get("cumulative_term_frequency", True)))


def build_word_counts(words: list[str], weights: list[float], cumulative: bool) -> Backbone:
    """A dimension for each word."""
    counts = WordCounts(torch.tensor(weights), cumulative)
    tokens = WhitespaceTokenizer(words)
    return Backbone(
        st_name="BoW",
        module=counts,
        tokenizer=tokens,
        dim=len(words),
        choose_layout=_nothing_to_choose(_forward_bags),
        write=partial(_write_word_counts, counts, tokens),
        pooling=None,
        subfolder="0_BoW",
    )


def _write_word_counts(counts: WordCounts, tokens: WhitespaceTokenizer, folder: Path) -> None:
    """Vocabulary and weights."""
    words = tokens.vocabulary()
    config = {
        "vocab": words,
        "word_weights": dict(zip(words, counts.weight.tolist(), strict=True)),
        "unknown_word_weight": 1.0,
        "cumulative_term_frequency": counts.cumulative,
    }
    write_json(folder / "config.json", config)
