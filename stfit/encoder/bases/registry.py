"""Bases that start from nothing, or from a file of word vectors: what a recipe writes, and how each is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stfit.encoder.bases.word_vectors import (
    frequent_words,
    inverse_frequencies,
    read_vectors,
    read_weights_of_words,
    vector_dim,
    weigh,
)
from stfit.lazy import lazy
from stfit.paths import Location
from stfit.spec import Spec

if TYPE_CHECKING:
    import torch

    from stfit.encoder import tokenizer as tokens
    from stfit.encoder.backbone import Backbone
    from stfit.encoder.bases import bert_scratch as scratch
    from stfit.encoder.bases import static_embeddings as tables
    from stfit.encoder.bases import transformer
    from stfit.encoder.config import Model
else:
    torch = lazy("torch")
    scratch, tables = lazy("stfit.encoder.bases.bert_scratch"), lazy("stfit.encoder.bases.static_embeddings")
    tokens, transformer = lazy("stfit.encoder.tokenizer"), lazy("stfit.encoder.bases.transformer")


MAX_POSITIONS = 512
VOCAB_SIZE = 30_000
PADDING = "PADDING_TOKEN"


class Scratch(Spec):
    """A small BERT with random weights and a WordPiece vocabulary learnt from the training texts: needs no network."""

    st_name: ClassVar[str] = "Transformer"
    learns_from_texts: ClassVar[bool] = True
    type: Literal["scratch"] = "scratch"
    hidden_size: int = Field(128, gt=0)
    """Width of the token embeddings; a multiple of `num_heads`."""
    num_layers: int = Field(2, gt=0)
    """Transformer layers."""
    num_heads: int = Field(4, gt=0)
    """Attention heads of each layer."""
    vocab_size: int = Field(8000, ge=100)
    """Most entries of the WordPiece vocabulary; a small corpus fills fewer."""

    @model_validator(mode="after")
    def heads_divide_hidden_size(self) -> Self:
        """Each head takes an equal slice of the hidden size."""
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        return self

    def build(self, settings: Model, texts: Iterable[str]) -> Backbone:
        """Weights are drawn from torch's global generator."""
        backbone, tokenizer = scratch.build_scratch(self, texts, settings.dropout)
        return transformer.build_transformer(backbone, tokenizer, settings)

    def size(self) -> tuple[int, int]:
        """Size of a token embedding, and number of weights, before the vocabulary is known."""
        embedded = (self.vocab_size + MAX_POSITIONS) * self.hidden_size
        return self.hidden_size, embedded + self.num_layers * 12 * self.hidden_size**2


def _vectors_have_their_own_size(table: Static | WordEmbeddings) -> Static | WordEmbeddings:
    """Raises ValueError for a size beside a file of vectors."""
    if table.vectors is not None and table.embedding_dim is not None:
        raise ValueError("`embedding_dim` is as in the file of `vectors`: leave it out")
    return table


SizeOf = Callable[["Static | WordEmbeddings"], tuple[int, int]]


def _size_of_table(table: Static | WordEmbeddings) -> tuple[int, int]:
    """Size of a vector, and number of weights, before the vocabulary is known."""
    dim = table.embedding_dim or (table.default_dim if table.vectors is None else vector_dim(Path(table.vectors)))
    return dim, dim * (table.vocab_size or VOCAB_SIZE)


class Static(Spec):
    """A vector for each token, and their mean for a text: no transformer, and hundreds of times faster than one."""

    st_name: ClassVar[str] = "StaticEmbedding"
    num_layers: ClassVar[int] = 0
    default_dim: ClassVar[int] = 256
    type: Literal["static"] = "static"
    vectors: Location | None = None
    """Text file of word vectors, as GloVe, word2vec and fastText write them (.txt or .vec, also .gz). Default: random
    ones, of tokens that are learnt from the training texts."""
    embedding_dim: int | None = Field(None, gt=0)
    """Size of the vectors. Default: as in `vectors`, else 256."""
    vocab_size: int | None = Field(None, gt=0)
    """Most entries of the vocabulary. Default: all words of `vectors`, also those that no training text has, else
    30000. A smaller number takes the first ones, which are the most frequent in such files."""

    own_size = model_validator(mode="after")(_vectors_have_their_own_size)
    size: ClassVar[SizeOf] = _size_of_table

    @property
    def learns_from_texts(self) -> bool:
        """Whether the vocabulary is that of the training texts."""
        return self.vectors is None

    def build(self, settings: Model, texts: Iterable[str]) -> Backbone:
        """Random vectors are drawn from torch's global generator."""
        if self.vectors is None:
            tokenizer = scratch.train_tokenizer(texts, self.vocab_size or VOCAB_SIZE).backend_tokenizer
            table_vd = torch.randn(tokenizer.get_vocab_size(), self.size()[0])
        else:
            words, vectors = read_vectors(Path(self.vectors), self.vocab_size)
            tokenizer, table_vd = tokens.word_tokenizer(words), torch.from_numpy(vectors)
            table_vd = torch.cat(
                [table_vd, table_vd.new_zeros(tokenizer.get_vocab_size() - len(words), table_vd.shape[1])]
            )
        return tables.build_static(table_vd, tokenizer, settings)


class WordEmbeddings(Spec):
    """A vector for each word between white space, for `token_layers` and `pooling` to work on."""

    st_name: ClassVar[str] = "WordEmbeddings"
    num_layers: ClassVar[int] = 0
    default_dim: ClassVar[int] = 300
    type: Literal["word_embeddings"] = "word_embeddings"
    vectors: Location | None = None
    """Text file of word vectors, as GloVe, word2vec and fastText write them (.txt or .vec, also .gz). Default: random
    ones, of the most frequent words of the training texts."""
    embedding_dim: int | None = Field(None, gt=0)
    """Size of the vectors. Default: as in `vectors`, else 300."""
    vocab_size: int | None = Field(None, gt=0)
    """Most words. Default: all words of `vectors`, also those that no training text has, else 30000. A smaller number
    takes the first ones, which are the most frequent in such files."""

    own_size = model_validator(mode="after")(_vectors_have_their_own_size)
    size: ClassVar[SizeOf] = _size_of_table

    @property
    def learns_from_texts(self) -> bool:
        """Whether the vocabulary is that of the training texts."""
        return self.vectors is None

    def build(self, settings: Model, texts: Iterable[str]) -> Backbone:
        """Random vectors are drawn from torch's global generator. Word 0 is sentence-transformers' padding."""
        if self.vectors is None:
            words = frequent_words(texts, self.vocab_size or VOCAB_SIZE)
            table_vd = torch.randn(len(words), self.size()[0])
        else:
            words, vectors = read_vectors(Path(self.vectors), self.vocab_size)
            table_vd = torch.from_numpy(vectors)
        table_vd = torch.cat([table_vd.new_zeros(1, table_vd.shape[1]), table_vd])
        return tables.build_words(
            table_vd, tokens.WhitespaceTokenizer([PADDING, *words], settings.max_seq_length), trained=True
        )


class BagOfWords(Spec):
    """A dimension for each of the most frequent words of the training texts: its count times its weight.

    Has nothing to train, so that a dense layer has to follow.
    """

    st_name: ClassVar[str] = "BoW"
    num_layers: ClassVar[int] = 0
    learns_from_texts: ClassVar[bool] = True
    type: Literal["bag_of_words"] = "bag_of_words"
    vocab_size: int = Field(10_000, gt=0)
    """Most words, and so most dimensions."""
    weights: Location | None = None
    """File with a word and its weight on each line. Default: the inverse document frequency in the training texts,
    1 + ln((1 + texts) / (1 + texts with the word))."""
    unknown_word_weight: float = 1.0
    """Weight of a word that `weights` does not have."""
    cumulative_term_frequency: bool = True
    """Count a word as often as it occurs, not once."""

    def build(self, settings: Model, texts: Iterable[str]) -> Backbone:
        """Counts the training texts."""
        all_texts = list(texts)
        words = frequent_words(all_texts, self.vocab_size)
        if self.weights is None:
            known = inverse_frequencies(words, tokens.WhitespaceTokenizer(words), all_texts)
        else:
            known = read_weights_of_words(Path(self.weights))
        weights = weigh(words, known, self.unknown_word_weight)
        return tables.build_word_counts(words, weights, self.cumulative_term_frequency)

    def size(self) -> tuple[int, int]:
        """Size of the embedding, and number of weights."""
        return self.vocab_size, 0


Base = Annotated[Scratch | Static | WordEmbeddings | BagOfWords, Field(discriminator="type")]
