"""A small BERT from nothing: a WordPiece vocabulary learnt from texts, and random weights."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stfit.encoder.bases.registry import MAX_POSITIONS, Scratch
from stfit.encoder.bases.transformer import set_dropout

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


START = "\u2581"
"""Marks the start of a word while pieces are learnt."""


def learn_pieces(words: Iterable[str], size: int) -> list[str]:
    """At most about `size` WordPiece entries, most general first; the same for the same words in every process.

    The trainer of WordPiece in `tokenizers` is not: it numbers the `##` letters in the order of a randomly seeded hash
    map, and ties between merges follow the numbers. Byte-pair merges without a prefix have no such step, so they are
    learnt over words with a start mark, and the mark is translated into the prefix.
    """
    backend = HFTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.train_from_iterator(
        (START + word for word in words), trainers.BpeTrainer(vocab_size=size, show_progress=False)
    )
    learnt = sorted(backend.get_vocab().items(), key=lambda entry: entry[1])
    letters = [token for token, _ in learnt if len(token) == 1 and token != START]
    longer = [token for token, _ in learnt if len(token) > 1]
    pieces = [token[1:] if token[0] == START else f"##{token}" for token in longer]
    return list(dict.fromkeys([*letters, *(f"##{letter}" for letter in letters), *pieces]))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A lower-casing WordPiece tokenizer (https://arxiv.org/abs/1609.08144) learnt from `texts`."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = (word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    entries = [*SPECIAL, *learn_pieces(words, vocab_size - len(SPECIAL))][:vocab_size]
    vocab = {entry: index for index, entry in enumerate(entries)}
    backend = HFTokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizer
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=MAX_POSITIONS,
    )


def build_scratch(
    settings: Scratch, texts: Iterable[str], dropout: float | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Backbone and tokenizer; weights are drawn from torch's global generator. `dropout`: None = as BERT's, 0.1."""
    tokenizer = train_tokenizer(texts, settings.vocab_size)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        intermediate_size=4 * settings.hidden_size,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
    )
    set_dropout(config, dropout)
    return BertModel(config, add_pooling_layer=False), tokenizer
