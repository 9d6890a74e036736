"""A small BERT from scratch: random weights, and a WordPiece vocabulary learned from the training texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from stfit.encoder.backbone import Backbone, BackboneOptions
from stfit.encoder.bases.transformer import ST_NAME, build_transformer, set_dropout
from stfit.encoder.folder.model_config import ModelInfo
from stfit.lazy import lazy
from stfit.progress import task
from stfit.spec import Spec

if TYPE_CHECKING:
    import transformers
    from transformers import PreTrainedTokenizerBase
else:
    transformers = lazy("transformers")

MAX_POSITIONS = 512
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORD_START = "\u2581"
"""Marks the start of a word while pieces are learned."""


class Scratch(Spec):
    """A small BERT with random weights and a WordPiece vocabulary learned from the training texts; needs no network."""

    st_name: ClassVar[str] = ST_NAME
    learns_from_texts: ClassVar[bool] = True
    type: Literal["scratch"] = "scratch"
    hidden_size: int = Field(128, gt=0)
    """Size of the token embeddings; a multiple of `num_heads`."""
    num_layers: int = Field(2, gt=0)
    """Number of transformer layers."""
    num_heads: int = Field(4, gt=0)
    """Number of attention heads per layer."""
    vocab_size: int = Field(8000, ge=100)
    """Maximum vocabulary size; a small corpus results in fewer entries."""

    @model_validator(mode="after")
    def _heads_divide_hidden_size(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        return self

    def build(self, options: BackboneOptions, texts: Iterable[str]) -> Backbone:
        """Weights are drawn from torch's global generator."""
        tokenizer = train_tokenizer(texts, self.vocab_size)
        config = transformers.BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            intermediate_size=4 * self.hidden_size,
            max_position_embeddings=MAX_POSITIONS,
            pad_token_id=tokenizer.pad_token_id,
        )
        set_dropout(config, options.dropout)
        return build_transformer(transformers.BertModel(config, add_pooling_layer=False), tokenizer, options)

    def inspect(self) -> ModelInfo:
        embeddings = (self.vocab_size + MAX_POSITIONS) * self.hidden_size
        return ModelInfo(
            ST_NAME,
            is_random=True,
            max_seq_length=MAX_POSITIONS,
            positions=MAX_POSITIONS,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            parameters=embeddings + self.num_layers * 12 * self.hidden_size**2,
            model_type="bert",
            num_heads=self.num_heads,
        )


def learn_pieces(words: Iterable[str], size: int) -> list[str]:
    """About `size` WordPiece entries, most general first; the same for the same words in every process.

    The WordPiece trainer of `tokenizers` is not deterministic: it numbers the `##` letters in the order of a randomly
    seeded hash map, and ties between merges follow the numbers. Byte-pair merges without a prefix have no such step, so
    this function learns them over words with a start mark, and translates the mark into the prefix.
    """
    backend = HFTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with task(f"learning a vocabulary of {size:,} pieces"):
        backend.train_from_iterator(
            (WORD_START + word for word in words), trainers.BpeTrainer(vocab_size=size, show_progress=False)
        )
    vocab = backend.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__)
    letters = [token for token in tokens if len(token) == 1 and token != WORD_START]
    longer = [token for token in tokens if len(token) > 1]
    pieces = [token[1:] if token[0] == WORD_START else f"##{token}" for token in longer]
    return list(dict.fromkeys([*letters, *(f"##{letter}" for letter in letters), *pieces]))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A lower-casing WordPiece tokenizer (https://arxiv.org/abs/1609.08144) learned from `texts`."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = (word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    entries = [*SPECIAL_TOKENS, *learn_pieces(words, vocab_size - len(SPECIAL_TOKENS))][:vocab_size]
    vocab = {entry: index for index, entry in enumerate(entries)}
    backend = HFTokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizer
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=MAX_POSITIONS,
    )
