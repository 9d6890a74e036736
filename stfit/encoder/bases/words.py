"""WordEmbeddings: one vector per word between whitespace, for token layers and pooling to work on."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from stfit.encoder.backbone import Backbone, BackboneOptions
from stfit.encoder.bases.table import DEFAULT_VOCAB_SIZE, VectorTable, inspect_table, single_layout
from stfit.encoder.bases.word_vectors import frequent_words, read_vectors
from stfit.encoder.folder.files import read_json, read_weights, write_weights
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.folder.validate import require_vectors
from stfit.encoder.tokenizer import WhitespaceTokenizer, load_whitespace_tokenizer
from stfit.errors import ModelError
from stfit.io.json_files import write_json
from stfit.lazy import Tensor, nn, torch

ST_NAME = "WordEmbeddings"
CONFIG_FILE = "wordembedding_config.json"
ST_TOKENIZER = "sentence_transformers.models.tokenizer.WhitespaceTokenizer.WhitespaceTokenizer"
PADDING = "PADDING_TOKEN"
"""sentence-transformers' word 0."""
NO_LIMIT = 1_000_000


class WordEmbeddings(VectorTable):
    """One vector per word between whitespace, for `token_layers` and `pooling` to work on."""

    st_name: ClassVar[str] = ST_NAME
    default_dim: ClassVar[int] = 300
    type: Literal["word_embeddings"] = "word_embeddings"

    def build(self, options: BackboneOptions, texts: Iterable[str]) -> Backbone:
        """Random vectors are drawn from torch's global generator."""
        if self.vectors is None:
            words = frequent_words(texts, self.vocab_size or DEFAULT_VOCAB_SIZE)
            table_vd = torch.randn(len(words), self.dim)
        else:
            words, vectors = read_vectors(Path(self.vectors), self.vocab_size)
            table_vd = torch.from_numpy(vectors)
        table_vd = torch.cat([table_vd.new_zeros(1, table_vd.shape[1]), table_vd])
        return _build(table_vd, WhitespaceTokenizer([PADDING, *words], options.max_seq_length), is_trained=True)


def _build(table_vd: Tensor, tokenizer: WhitespaceTokenizer, is_trained: bool) -> Backbone:
    table = nn.Embedding.from_pretrained(table_vd, freeze=not is_trained)
    return Backbone(
        st_name=ST_NAME,
        module=table,
        tokenizer=tokenizer,
        dim=table.embedding_dim,
        choose_layout=single_layout(_forward),
        write=partial(_write, table, tokenizer),
    )


def _forward(table: nn.Embedding, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    ids_t = torch.from_numpy(np.concatenate(sequences).astype(np.int64)).to(table.weight.device)
    vectors_td: Tensor = table(ids_t)
    return vectors_td, np.arange(len(sequences))


def _write(table: nn.Embedding, tokenizer: WhitespaceTokenizer, folder: Path) -> None:
    config = {
        "tokenizer_class": ST_TOKENIZER,
        "update_embeddings": table.weight.requires_grad,
        "max_seq_length": tokenizer.max_seq_length or NO_LIMIT,
    }
    write_json(folder / CONFIG_FILE, config)
    write_weights({"emb_layer.weight": table.weight.detach().cpu().contiguous()}, folder)
    tokenizer.save(folder)


def load(folder: Path, options: BackboneOptions) -> Backbone:
    config = read_json(folder / CONFIG_FILE)
    tokenizer_class = str(config.get("tokenizer_class")).rpartition(".")[2]
    if tokenizer_class != "WhitespaceTokenizer":
        hint = ", which joins words to phrases with nltk" if tokenizer_class == "PhraseTokenizer" else ""
        raise ModelError(
            f"{folder}: its tokenizer is a {tokenizer_class}{hint}; stfit only supports WhitespaceTokenizer"
        )
    limit = options.max_seq_length or config.get("max_seq_length") or NO_LIMIT
    tokenizer = load_whitespace_tokenizer(folder, limit if limit < NO_LIMIT else None)
    weights = read_weights(folder)
    if "emb_layer.weight" not in weights:
        raise ModelError(f"{folder}: model.safetensors does not contain `emb_layer.weight`")
    require_vectors(tokenizer, len(weights["emb_layer.weight"]), folder)
    is_trained = bool(config.get("update_embeddings", False))
    return _build(weights["emb_layer.weight"].float(), tokenizer, is_trained)


def inspect(folder: Path) -> ModelInfo:
    limit = read_json(folder / CONFIG_FILE).get("max_seq_length", NO_LIMIT)
    load_tokenizer = partial(load_whitespace_tokenizer, folder)
    return inspect_table(ST_NAME, folder, load_tokenizer, limit if limit < NO_LIMIT else None)
