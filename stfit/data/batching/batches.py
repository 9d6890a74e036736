"""Examples -> batches of token sequences.

Every distinct text is tokenized once, before the first step; a batch then takes slices of one flat array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from stfit.data.cache.teacher import TeacherEmbeddings
from stfit.data.cache.tokens import Tokenize, load_tokens

if TYPE_CHECKING:
    from stfit.data.mapping.examples import Examples

Label: TypeAlias = np.ndarray | TeacherEmbeddings
MISSING = -1
"""Index of a text that an example does not have, such as a negative of a row with fewer negatives than others."""


@dataclass(frozen=True)
class Batch:
    rows: np.ndarray
    sequences: list[np.ndarray]
    prompt_lengths: np.ndarray | None
    """Tokens at the start of each sequence that pooling skips; None if it skips none."""
    columns: dict[str, np.ndarray]
    """Role -> index into `sequences` for each row, or MISSING."""
    labels: tuple[np.ndarray | None, ...]
    """What each loss learns from; None for one that needs no label."""
    examples: Examples

    @property
    def tokens(self) -> int:
        return sum(len(sequence) for sequence in self.sequences)

    def rows_with(self, sequences: np.ndarray) -> np.ndarray:
        return self.rows[np.any([np.isin(index, sequences) for index in self.columns.values()], axis=0)]


@dataclass(frozen=True)
class TokenTable:
    """Tokenized examples: the distinct texts concatenated, and the index of each example's text in each column."""

    flat: np.ndarray
    starts: np.ndarray
    """Text i is flat[starts[i] : starts[i + 1]]."""
    prompt_lengths: np.ndarray | None
    text_ids: dict[str, np.ndarray]
    examples: Examples
    labels: tuple[Label | None, ...] = (None,)
    """Of each loss: a number per example, a teacher's scores of its candidates, or embeddings of its texts; or none."""

    def __len__(self) -> int:
        return len(next(iter(self.text_ids.values())))

    def duplicate_columns(self, columns: tuple[str, ...]) -> TokenTable:
        if not columns:
            return self
        (text_ids,) = self.text_ids.values()
        return replace(self, text_ids=dict.fromkeys(columns, text_ids))

    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def texts_of(self, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of the distinct texts of these examples, None for all, one after another; and their lengths."""
        lengths = self.lengths()
        if rows is None:
            return self.flat, lengths
        is_used = np.zeros(len(lengths), dtype=bool)
        for column in self.text_ids.values():
            is_used[column[rows][column[rows] != MISSING]] = True
        return self.flat[np.repeat(is_used, lengths)], lengths[is_used]

    def batch(self, rows: np.ndarray, distinct: bool) -> Batch:
        """The batch of these examples. `distinct`: embed a repeated text once, which is correct without dropout."""
        ids = np.concatenate([column[rows] for column in self.text_ids.values()])
        is_present = ids != MISSING
        texts = ids[is_present]
        index = np.full(len(ids), MISSING)
        if distinct:
            texts, index[is_present] = np.unique(texts, return_inverse=True)
        else:
            index[is_present] = np.arange(len(texts))
        columns = dict(zip(self.text_ids, np.split(index, len(self.text_ids)), strict=True))
        sequences = [self.flat[self.starts[text] : self.starts[text + 1]] for text in texts]
        prompt_lengths = None if self.prompt_lengths is None else self.prompt_lengths[texts]
        labels = tuple(None if label is None else label[rows] for label in self.labels)
        return Batch(rows, sequences, prompt_lengths, columns, labels, self.examples)


def tokenize_examples(
    examples: Examples,
    prompts: dict[str, str],
    tokenize: Tokenize,
    cache_name: str | None,
    prompt_skip: Callable[[str], int],
    rows: np.ndarray | None = None,
) -> TokenTable:
    """`rows`: the examples to tokenize, by default all; the others are MISSING in the table."""
    ids: dict[tuple[str, str], int] = {}
    used = list(range(len(examples))) if rows is None else rows.tolist()
    text_ids = {role: np.full(len(examples), MISSING) for role in examples.texts}
    for role, texts in examples.texts.items():
        text_ids[role][used] = [_number(ids, (prompts[role], texts[row])) for row in used]
    flat, starts = load_tokens([prompt + text for prompt, text in ids], tokenize, cache_name)
    skips = {prompt: prompt_skip(prompt) for prompt in prompts.values()}
    prompt_lengths = np.array([skips[prompt] for prompt, _ in ids], dtype=np.int64) if any(skips.values()) else None
    return TokenTable(flat, starts, prompt_lengths, text_ids, examples)


def number_texts(examples: Examples) -> np.ndarray:
    """The index of each example's texts [examples, columns], for the samplers; prompts make no difference."""
    ids: dict[tuple[str, str], int] = {}
    return np.stack([[_number(ids, ("", text)) for text in texts] for texts in examples.texts.values()], axis=1)


def _number(ids: dict[tuple[str, str], int], key: tuple[str, str | None]) -> int:
    prompt, text = key
    return MISSING if text is None else ids.setdefault((prompt, text), len(ids))
