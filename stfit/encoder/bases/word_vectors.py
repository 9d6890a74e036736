"""Text files of word vectors and word weights, and the words and weights counted in texts."""

import gzip
import string
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from math import isfinite, log, nan
from pathlib import Path

import numpy as np

from stfit.encoder.tokenizer import Tokenizer
from stfit.errors import ModelError, Problem

MAX_LINE_LENGTH = 2**20
"""Characters read at once: a longer line can't be a word and its vector, and is reported as damaged."""


def read_vectors(path: Path, max_words: int | None = None) -> tuple[list[str], np.ndarray]:
    """Words and their vectors, float32 [words, dim], of a text file in the format of GloVe, word2vec and fastText.

    `max_words` keeps the first words, which are the most frequent in such files. Of a repeated word, the first vector
    counts. Raises ModelError, with the line, if the file is damaged.
    """
    lines: dict[str, int] = {}
    values = array("f")  # grows in place, so that no vector is in memory twice
    dim = 0
    for line, parts in _vector_lines(path):
        dim = dim or len(parts) - 1
        word = " ".join(parts[:-dim])  # a few words of GloVe's largest file have spaces
        if word in lines:
            continue
        lines[word] = line
        with suppress(ValueError):  # then too few numbers are added
            values.extend(map(float, parts[-dim:]))
        if not word or len(values) != len(lines) * dim:
            raise _damaged(path, line, f"is not a word and {dim} numbers")
        if len(lines) == max_words:
            break
    if not lines:
        raise _damaged(path, 1, "has no vector")
    vectors = np.frombuffer(values, dtype=np.float32).reshape(len(lines), dim)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise _damaged(path, list(lines.values())[finite.argmin()], f"is not a word and {dim} numbers")
    return list(lines), vectors


def _vector_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and parts of every line but word2vec's header, which holds the numbers of words and dimensions."""
    for line, text in _text_lines(path):
        parts = text.rstrip().split(" ")
        if len(parts) == 2 and line == 1 and all(part.isdigit() for part in parts):
            continue
        if len(parts) < 2:
            raise _damaged(path, line, "is not a word and numbers")
        yield line, parts


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line of a plain or gzipped file. Raises ModelError if it can't be read."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig") as file
        ):
            # str.splitlines would also split at characters that are part of words in some files.
            lines = iter(partial(file.readline, MAX_LINE_LENGTH), "")
            yield from enumerate((line.rstrip("\n") for line in lines), start=1)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: can't be read: {error}") from error


def _damaged(path: Path, line: int, reason: str) -> ModelError:
    return ModelError([Problem(f"this line {reason}", "vectors", str(path), line)])


def read_word_weights(path: Path) -> dict[str, float]:
    weights: dict[str, float] = {}
    for line, text in _text_lines(path):
        word, _, number = text.strip().rpartition("\t" if "\t" in text else " ")
        try:
            weight = float(number)
        except ValueError:
            weight = nan
        if not isfinite(weight):
            raise _damaged(path, line, "is not a word and a number")
        weights[word.strip()] = weight
    return weights


def inverse_frequencies(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """1 + ln((1 + texts) / (1 + texts with the word)) for every word of the vocabulary that occurs."""
    sequences, vocabulary = tokenizer(list(texts)), tokenizer.vocabulary()
    counts = Counter(token_id for sequence in sequences for token_id in set(sequence.tolist()))
    return {vocabulary[token_id]: 1 + log((1 + len(sequences)) / (1 + count)) for token_id, count in counts.items()}


def weights_of_vocabulary(vocabulary: list[str], known: dict[str, float], unknown: float) -> list[float]:
    """The weight of each word, else that of its lower case, else `unknown`, as in sentence-transformers."""
    return [known.get(word, known.get(word.lower(), unknown)) for word in vocabulary]


def frequent_words(texts: Iterable[str], max_words: int) -> list[str]:
    """The most frequent words between whitespace, without punctuation and in lower case."""
    counts = Counter(
        bare for text in texts for word in text.split() if (bare := word.strip(string.punctuation).lower())
    )
    return sorted(counts, key=lambda word: (-counts[word], word))[:max_words]
