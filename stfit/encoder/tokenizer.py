"""Texts -> token ids. Here what needs no transformer; transformer_tokens.py has the rest."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from stfit.errors import ModelError

UNKNOWN = "[UNK]"


class Tokenizer(Protocol):
    """A tokenizer with its limit."""

    @property
    def max_seq_length(self) -> int | None:
        """Longest sequence in tokens; None where there is no limit."""

    @property
    def fingerprint(self) -> str:
        """Everything that decides which token ids a text gets."""

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text (int32), cut at max_seq_length, not padded."""

    def prompt_length(self, prompt: str) -> int:
        """Tokens that `prompt` puts before a text."""

    def vocabulary(self) -> list[str]:
        """Every token, by id."""

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""


class PlainTokenizer:
    """The tokenizer of a tokenizer.json by itself, with the limit that the file has."""

    def __init__(self, backend: HFTokenizer, special_tokens: bool = False) -> None:
        backend.no_padding()
        self._backend, self._special_tokens = backend, special_tokens

    @property
    def max_seq_length(self) -> int | None:
        """Longest sequence in tokens; None where there is no limit."""
        truncation = self._backend.truncation
        return None if truncation is None else int(truncation["max_length"])

    @property
    def fingerprint(self) -> str:
        """Everything that decides which token ids a text gets."""
        return f"{'with' if self._special_tokens else 'without'} special tokens {self._backend.to_str()}"

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=self._special_tokens)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def prompt_length(self, prompt: str) -> int:
        """Tokens that `prompt` puts before a text."""
        return len(self([prompt])[0])

    def vocabulary(self) -> list[str]:
        """Every token, by id."""
        return words_by_id(self._backend.get_vocab())

    def save(self, folder: Path) -> None:
        """Write tokenizer.json."""
        self._backend.save(str(folder / "tokenizer.json"))


def load_tokenizer_file(path: Path) -> HFTokenizer:
    """The tokenizer of a tokenizer.json. Raises ModelError where it is damaged, or not there."""
    try:
        return HFTokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises a bare Exception
        raise ModelError(f"{path}: its tokenizer can't be loaded: {error}") from error


def untruncated_tokenizer(path: Path, special_tokens: bool = True) -> PlainTokenizer:
    """The tokenizer of a tokenizer.json, without its limit."""
    backend = load_tokenizer_file(path)
    backend.no_truncation()
    return PlainTokenizer(backend, special_tokens)


def word_tokenizer(words: Sequence[str]) -> HFTokenizer:
    """A tokenizer of whole words and punctuation marks, in lower case where all the words are.

    A word that is not there becomes UNKNOWN, which takes the number after the last where it is not one of the words.
    """
    vocab = {word: number for number, word in enumerate(words)}
    vocab.setdefault(UNKNOWN, len(vocab))
    backend = HFTokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    if all(word == word.lower() for word in words):
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


class WhitespaceTokenizer:
    """Words between white space; one that is not in the vocabulary is tried without punctuation, then in lower case.

    What is still unknown is left out. The same steps as sentence-transformers' WhitespaceTokenizer.
    """

    def __init__(
        self,
        words: Sequence[str],
        max_seq_length: int | None = None,
        stop_words: Sequence[str] = (),
        lower_case: bool = False,
    ) -> None:
        self.max_seq_length = max_seq_length
        self._words, self._stop_words, self._lower_case = list(words), list(stop_words), lower_case
        numbers = {word: number for number, word in enumerate(words)}
        # A stop word hides the same word of the vocabulary.
        self._known: dict[str, int | None] = {**numbers, **dict.fromkeys(stop_words)}

    @property
    def fingerprint(self) -> str:
        """Everything that decides which token ids a text gets."""
        said = [self._words, self._stop_words, self._lower_case, self.max_seq_length]
        return f"words {sha256(json.dumps(said).encode()).hexdigest()}"

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text."""
        return [np.array(self.numbers(text)[: self.max_seq_length], dtype=np.int32) for text in texts]

    def numbers(self, text: str) -> list[int]:
        """Ids of the known words of a text."""
        found = map(self.number, (text.lower() if self._lower_case else text).split())
        return [number for number in found if number is not None]

    def number(self, word: str) -> int | None:
        """The first of the word's forms that is known; None for a stop word too."""
        bare = word.strip(string.punctuation)
        form = next((form for form in (word, bare, bare.lower()) if form in self._known), None)
        return None if form is None else self._known[form]

    def prompt_length(self, prompt: str) -> int:
        """Tokens that `prompt` puts before a text."""
        return len(self.numbers(prompt))

    def vocabulary(self) -> list[str]:
        """Every word, by id."""
        return self._words

    def save(self, folder: Path) -> None:
        """Write the vocabulary in sentence-transformers' words."""
        said = {"vocab": self._words, "stop_words": self._stop_words, "do_lower_case": self._lower_case}
        path = folder / "whitespacetokenizer_config.json"
        path.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")


def words_by_id(vocabulary: dict[str, int]) -> list[str]:
    """Every entry at the place of its id; nothing where an id is not used."""
    words = [""] * (max(vocabulary.values()) + 1)
    for word, number in vocabulary.items():
        words[number] = word
    return words


def load_word_tokens(folder: Path, max_seq_length: int | None = None) -> WhitespaceTokenizer:
    """The tokenizer of a folder of word embeddings. Raises ModelError where it is damaged, or not there."""
    path = folder / "whitespacetokenizer_config.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        stop_words, lower_case = said.get("stop_words") or [], bool(said.get("do_lower_case", False))
        return WhitespaceTokenizer(said["vocab"], max_seq_length, stop_words, lower_case)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: can't be used: {error}") from error
