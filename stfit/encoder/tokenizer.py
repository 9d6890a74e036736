"""Texts -> token ids, without transformers."""

import json
import re
import string
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Encoding, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from stfit.errors import DataError, ModelError
from stfit.io.display import shorten
from stfit.io.json_files import load_json

UNKNOWN = "[UNK]"
UNKNOWN_NAMES = ("<unk>", UNKNOWN)
WORDS_FILE = "whitespacetokenizer_config.json"

WORD = re.compile(r"\S+")
WORD_END = re.compile(r"\S(?=\s)")

CHARACTERS_PER_TOKEN = 8
"""Of a long text, so many characters for each token are read at first. Most languages have two to five."""
MARGIN = 64
"""Tokens that must be left over from the start of a text, so that its end makes no difference to those before."""
MAX_CHARACTERS = 2**20
"""Of texts that are tokenized at once: each token takes some hundred bytes on the way to its id."""


class FileTokenizer:
    def __init__(self, backend: HFTokenizer, special_tokens: bool = False) -> None:
        backend.no_padding()
        self._backend, self._special_tokens = backend, special_tokens
        self.num_vectors: int | None = None
        """Size of the table of vectors, if the tokenizer has a few tokens more."""

    @property
    def max_seq_length(self) -> int | None:
        truncation = self._backend.truncation
        return None if truncation is None else int(truncation["max_length"])

    def cut_at(self, tokens: int) -> None:
        self._backend.enable_truncation(tokens)

    @property
    def fingerprint(self) -> str:
        return f"{'with' if self._special_tokens else 'without'} special tokens {self._backend.to_str()}"

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text (int32), cut at max_seq_length. Raises DataError for a token without a vector."""
        sequences = [
            np.array(encoding.ids, dtype=np.int32)
            for some in _split_by_characters(texts, self._first_size)
            for encoding in self._encode_starts(some)
        ]
        if self.num_vectors is not None:
            for text, ids in zip(texts, sequences, strict=True):
                if ids.max(initial=0) >= self.num_vectors:
                    token = self._backend.id_to_token(int(ids.max()))
                    raise DataError(f"the model has no vector for the token `{token}` in {shorten(text, 80)!r}")
        return sequences

    @property
    def _first_size(self) -> int | None:
        """Characters of a text that are looked at first; None if all tokens are wanted, or the last ones."""
        truncation = self._backend.truncation
        if truncation is None or truncation["direction"] != "right":
            return None
        return CHARACTERS_PER_TOKEN * (int(truncation["max_length"]) + MARGIN)

    def _encode_starts(self, texts: list[str]) -> list[Encoding]:
        """The encodings of the texts, of which a long one is read as far as its tokens are taken.

        Its start is long enough if MARGIN more tokens come out of it: only the last few depend on what follows.
        """
        size = self._first_size
        if size is None:
            return self._encode(texts)
        starts = [_start_of(text, size) for text in texts]
        encodings = self._encode(starts)
        while short := [
            i for i, start in enumerate(starts) if len(start) < len(texts[i]) and _left_over(encodings[i]) < MARGIN
        ]:
            size *= 4
            for i in short:
                starts[i] = _start_of(texts[i], size)
            for i, encoding in zip(short, self._encode([starts[i] for i in short]), strict=True):
                encodings[i] = encoding
        return encodings

    def _encode(self, texts: list[str]) -> list[Encoding]:
        try:
            return self._backend.encode_batch_fast(texts, add_special_tokens=self._special_tokens)
        except Exception as error:  # `tokenizers` raises a bare Exception, for example without an unknown token
            raise ModelError(f"the model's tokenizer.json can't be used: {error}") from error

    @property
    def unknown_id(self) -> int | None:
        """Id of the token for what is not in the vocabulary; None if there is none."""
        names = [getattr(self._backend.model, "unk_token", None), *UNKNOWN_NAMES]  # Unigram does not tell its name
        ids = (self._backend.token_to_id(name) for name in names if name)
        return next((token_id for token_id in ids if token_id is not None), None)

    def prompt_length(self, prompt: str) -> int:
        return len(self([prompt])[0])

    def vocabulary(self) -> list[str]:
        """Every token, by id; empty for an unused id."""
        tokens = {token_id: token for token, token_id in self._backend.get_vocab().items()}
        return [tokens.get(token_id, "") for token_id in range(max(tokens) + 1)]

    def save(self, folder: Path) -> None:
        self._backend.save(str(folder / "tokenizer.json"))


def _split_by_characters(texts: Sequence[str], size: int | None) -> Iterator[list[str]]:
    """Lists of texts whose tokens fit into memory, if no more than `size` characters of each are read."""
    some: list[str] = []
    characters = 0
    for text in texts:
        some.append(text)
        characters += len(text) if size is None else min(len(text), size)
        if characters >= MAX_CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some


def _start_of(text: str, size: int) -> str:
    """The first characters, up to the end of a word: within one, each token may depend on how it goes on."""
    while size < len(text):
        ends = [match.end() for match in WORD_END.finditer(text, size // 2, size)]
        if ends:
            return text[: ends[-1]]
        size *= 4
    return text


def _left_over(encoding: Encoding) -> int:
    """The number of tokens that were cut off."""
    return sum(map(len, encoding.overflowing))


def load_tokenizer_file(path: Path) -> HFTokenizer:
    try:
        return HFTokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises a bare Exception
        raise ModelError(f"{path}: its tokenizer can't be loaded: {error}") from error


def untruncated_tokenizer(path: Path, special_tokens: bool = True) -> FileTokenizer:
    backend = load_tokenizer_file(path)
    backend.no_truncation()
    return FileTokenizer(backend, special_tokens)


def word_tokenizer(words: Sequence[str]) -> HFTokenizer:
    """A tokenizer of whole words and punctuation marks, lower-casing if all the words are in lower case.

    Other words become UNKNOWN, whose id comes after the last word unless it is one of the words.
    """
    vocab = {word: word_id for word_id, word in enumerate(words)}
    vocab.setdefault(UNKNOWN, len(vocab))
    backend = HFTokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    if all(word == word.lower() for word in words):
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


class WhitespaceTokenizer:
    """That of sentence-transformers: an unknown word is retried without punctuation, then in lower case."""

    def __init__(
        self,
        words: Sequence[str],
        max_seq_length: int | None = None,
        stop_words: Sequence[str] = (),
        lower_case: bool = False,
    ) -> None:
        self.max_seq_length = max_seq_length
        self.unknown_id = None  # unknown words are left out
        self._words, self._stop_words, self._lower_case = list(words), list(stop_words), lower_case
        # A stop word hides the same word of the vocabulary.
        self._ids: dict[str, int | None] = {word: word_id for word_id, word in enumerate(words)}
        self._ids.update(dict.fromkeys(stop_words))

    @property
    def fingerprint(self) -> str:
        settings = [self._words, self._stop_words, self._lower_case, self.max_seq_length]
        return f"words {sha256(json.dumps(settings).encode()).hexdigest()}"

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(self._known_ids(text, self.max_seq_length), dtype=np.int32) for text in texts]

    def _known_ids(self, text: str, limit: int | None = None) -> list[int]:
        words = (match[0] for match in WORD.finditer(text.lower() if self._lower_case else text))
        ids = (self._find_id(word) for word in words)
        return list(islice((word_id for word_id in ids if word_id is not None), limit))

    def _find_id(self, word: str) -> int | None:
        bare = word.strip(string.punctuation)
        return next((self._ids[form] for form in (word, bare, bare.lower()) if form in self._ids), None)

    def prompt_length(self, prompt: str) -> int:
        return len(self._known_ids(prompt))

    def vocabulary(self) -> list[str]:
        return self._words

    def save(self, folder: Path) -> None:
        content = {"vocab": self._words, "stop_words": self._stop_words, "do_lower_case": self._lower_case}
        (folder / WORDS_FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


Tokenizer = FileTokenizer | WhitespaceTokenizer


def load_whitespace_tokenizer(folder: Path, max_seq_length: int | None = None) -> WhitespaceTokenizer:
    path = folder / WORDS_FILE
    try:
        content = load_json(path)
        stop_words, lower_case = content.get("stop_words") or [], bool(content.get("do_lower_case", False))
        return WhitespaceTokenizer(content["vocab"], max_seq_length, stop_words, lower_case)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: can't be used: {error}") from error
