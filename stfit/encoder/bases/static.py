"""StaticEmbedding: the mean of one vector per token, without a transformer."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from tokenizers import Tokenizer as HFTokenizer

from stfit.encoder.backbone import Backbone, BackboneOptions
from stfit.encoder.bases.bert_scratch import train_tokenizer
from stfit.encoder.bases.table import DEFAULT_VOCAB_SIZE, VectorTable, forward_bags, inspect_table, single_layout
from stfit.encoder.bases.word_vectors import read_vectors
from stfit.encoder.folder.files import read_json, read_weights, write_weights
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.folder.validate import require_vectors
from stfit.encoder.tokenizer import FileTokenizer, load_tokenizer_file, untruncated_tokenizer, word_tokenizer
from stfit.errors import ModelError
from stfit.lazy import Tensor, nn, torch

ST_NAME = "StaticEmbedding"


class Static(VectorTable):
    """The mean of one vector per token: hundreds of times faster than a transformer."""

    st_name: ClassVar[str] = ST_NAME
    default_dim: ClassVar[int] = 256
    type: Literal["static"] = "static"

    def build(self, options: BackboneOptions, texts: Iterable[str]) -> Backbone:
        """Random vectors are drawn from torch's global generator."""
        if self.vectors is None:
            backend = train_tokenizer(texts, self.vocab_size or DEFAULT_VOCAB_SIZE).backend_tokenizer
            table_vd = torch.randn(backend.get_vocab_size(), self.dim)
        else:
            words, vectors = read_vectors(Path(self.vectors), self.vocab_size)
            backend, table_vd = word_tokenizer(words), torch.from_numpy(vectors)
            unknown_vd = table_vd.new_zeros(backend.get_vocab_size() - len(words), table_vd.shape[1])
            table_vd = torch.cat([table_vd, unknown_vd])
        return _build(table_vd, backend, options)


def _build(table_vd: Tensor, backend: HFTokenizer, options: BackboneOptions) -> Backbone:
    if options.max_seq_length is not None:
        backend.enable_truncation(options.max_seq_length)  # saved in tokenizer.json
    tokenizer = FileTokenizer(backend)
    bags = nn.EmbeddingBag.from_pretrained(table_vd, freeze=False)
    return Backbone(
        st_name=ST_NAME,
        module=bags,
        tokenizer=tokenizer,
        dim=bags.embedding_dim,
        choose_layout=single_layout(forward_bags),
        write=partial(_write, bags, tokenizer),
        pooling=None,
    )


def _write(bags: nn.EmbeddingBag, tokenizer: FileTokenizer, folder: Path) -> None:
    write_weights({"embedding.weight": bags.weight.detach().cpu().contiguous()}, folder)
    tokenizer.save(folder)


def load(folder: Path, options: BackboneOptions) -> Backbone:
    weights = read_weights(folder)
    table_vd = weights["embedding.weight"] if "embedding.weight" in weights else _expand_vocab(weights, folder)
    backbone = _build(table_vd, load_tokenizer_file(folder / "tokenizer.json"), options)
    require_vectors(backbone.tokenizer, len(table_vd), folder)
    return backbone


def _expand_vocab(weights: dict[str, Tensor], folder: Path) -> Tensor:
    """One row per token, from model2vec's rows, which tokens may share, and its token weights."""
    if "embeddings" not in weights:
        raise ModelError(
            f"{folder}: model.safetensors contains neither `embedding.weight` nor model2vec's `embeddings`"
        )
    table_vd = weights["embeddings"].float()
    if "mapping" in weights:
        table_vd = table_vd[weights["mapping"].long()]
    return table_vd * weights["weights"][:, None].float() if "weights" in weights else table_vd


def inspect(folder: Path) -> ModelInfo:
    truncation = read_json(folder / "tokenizer.json").get("truncation") or {}
    load_tokenizer = partial(untruncated_tokenizer, folder / "tokenizer.json", special_tokens=False)
    return inspect_table(ST_NAME, folder, load_tokenizer, truncation.get("max_length"))
