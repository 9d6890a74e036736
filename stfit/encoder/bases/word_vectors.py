"""Word vectors and word weights: text files with a word at the start of each line, and what can be counted of texts."""

from __future__ import annotations

import gzip
import string
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from math import log
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stfit.errors import ModelError, Problem

if TYPE_CHECKING:
    from stfit.encoder.tokenizer import Tokenizer


LONGEST_LINE = 2**20
"""Characters of a line that are read at once: a longer one is no word and its vector, and ends as a damaged one."""


def read_vectors(path: Path, most: int | None = None) -> tuple[list[str], np.ndarray]:
    """Words and their vectors, float32 [words, dim], of a text file as GloVe, word2vec and fastText write them.

    `most` keeps the first words, which such files order by frequency. Of a word that stands there twice, the first
    counts. Raises ModelError where the file can't be read.
    """
    lines: dict[str, int] = {}
    numbers = array("f")  # grows in place, so that no vector is in memory twice
    dim = 0
    for line, parts in _vector_lines(path):
        dim = dim or len(parts) - 1
        word = " ".join(parts[:-dim])  # a few words of GloVe's largest file have spaces
        if word in lines:
            continue
        try:
            numbers.extend(map(float, parts[-dim:]))
        except ValueError:
            raise _no_vector(path, line, dim) from None
        lines[word] = line
        if not word or len(numbers) != len(lines) * dim:
            raise _no_vector(path, line, dim)
        if len(lines) == most:
            break
    if not lines:
        raise _damaged(path, 1, "holds no vector")
    vectors = np.frombuffer(numbers, dtype=np.float32).reshape(len(lines), dim)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise _no_vector(path, list(lines.values())[finite.argmin()], dim)
    return list(lines), vectors


def vector_dim(path: Path) -> int:
    """Size of the vectors in a file, from its first lines."""
    _, vectors = read_vectors(path, 1)
    return int(vectors.shape[1])


def _vector_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and parts of every line, but for word2vec's first, which holds the numbers of words and dimensions."""
    for line, text in _text_lines(path):
        parts = text.rstrip().split(" ")
        if len(parts) == 2 and line == 1 and all(part.isdigit() for part in parts):
            continue
        if len(parts) < 2:
            raise _damaged(path, line, "is not a word and numbers")
        yield line, parts


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line of a file, gzipped or not. Raises ModelError where it can't be read."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            # Only \n ends a line: some files have words that Python would take for the end of one.
            lines = iter(partial(file.readline, LONGEST_LINE), "")
            yield from enumerate((line.rstrip("\n") for line in lines), start=1)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: can't be read: {error}") from error


def _no_vector(path: Path, line: int, dim: int) -> ModelError:
    """The error for a line that holds no vector of the file's size."""
    return _damaged(path, line, f"is not a word and {dim} numbers")


def _damaged(path: Path, line: int, reason: str) -> ModelError:
    """The error for one line of a file."""
    return ModelError([Problem(f"this line {reason}", "vectors", str(path), line)])


def read_weights_of_words(path: Path) -> dict[str, float]:
    """Word -> weight, of a file with a word and a number on each line."""
    weights = {}
    for line, text in _text_lines(path):
        word, _, number = text.strip().rpartition("\t" if "\t" in text else " ")
        try:
            weights[word.strip()] = float(number)
        except ValueError:
            raise _damaged(path, line, "is not a word and a number") from None
    return weights


def inverse_frequencies(vocabulary: list[str], tokens: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """1 + ln((1 + texts) / (1 + texts with the word)) for every word that occurs."""
    sequences = tokens(list(texts))
    found = Counter(number for sequence in sequences for number in set(sequence.tolist()))
    return {vocabulary[number]: 1 + log((1 + len(sequences)) / (1 + count)) for number, count in found.items()}


def weigh(vocabulary: list[str], known: dict[str, float], unknown: float) -> list[float]:
    """The weight of each word, its own or that of its lower case; sentence-transformers' rule."""
    return [known.get(word, known.get(word.lower(), unknown)) for word in vocabulary]


def frequent_words(texts: Iterable[str], most: int | None) -> list[str]:
    """The most frequent words of some texts between white space, without punctuation and in lower case."""
    counts = Counter(
        bare for text in texts for word in text.split() if (bare := word.strip(string.punctuation).lower())
    )
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return ordered[:most]
