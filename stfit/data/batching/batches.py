"""Examples -> batches of token sequences.

Every distinct text is tokenised once, before the first step; a batch then only picks slices of one flat array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stfit.data.cache.tokens import Tokenize, load_tokens

if TYPE_CHECKING:
    from stfit.data.cache.teacher import TeacherEmbeddings
    from stfit.data.mapping.examples import Examples

MISSING = -1
"""Stands where an example has no text in a column (rows with fewer negatives than others)."""


@dataclass(frozen=True)
class Batch:
    """Some examples, as the encoder and the loss take them."""

    rows: np.ndarray
    """Indices of the examples."""
    sequences: list[np.ndarray]
    """Token ids of every text of the batch."""
    prompt_lengths: np.ndarray | None
    """Tokens at the start of each sequence that pooling leaves out; None where it pools all."""
    columns: dict[str, np.ndarray]
    """Role -> for each row, which of `sequences` it is; MISSING where it has none."""
    label: np.ndarray | None
    examples: Examples
    """What the rows are indices of."""

    @property
    def tokens(self) -> int:
        """Real tokens of the batch."""
        return sum(len(sequence) for sequence in self.sequences)

    def rows_with(self, sequence: np.ndarray) -> np.ndarray:
        """Those of `rows` that have one of these sequences in a column."""
        found: np.ndarray = self.rows[np.any([np.isin(places, sequence) for places in self.columns.values()], axis=0)]
        return found


@dataclass(frozen=True)
class TokenTable:
    """Examples as token ids: distinct texts end to end, and which of them each example has in each column."""

    flat: np.ndarray
    starts: np.ndarray
    """Text i is flat[starts[i] : starts[i + 1]]."""
    prompt_lengths: np.ndarray | None
    text_ids: dict[str, np.ndarray]
    label: np.ndarray | TeacherEmbeddings | None
    """Of the rows: one number each, or what a teacher makes of their texts."""
    examples: Examples

    def __len__(self) -> int:
        return len(next(iter(self.text_ids.values())))

    def duplicate_columns(self, views: tuple[str, ...]) -> TokenTable:
        """The texts of the one column in each of several, or as they are where there are no `views`."""
        if not views:
            return self
        (text_ids,) = self.text_ids.values()
        return replace(self, text_ids=dict.fromkeys(views, text_ids))

    def lengths(self) -> np.ndarray:
        """Tokens of each distinct text."""
        return np.diff(self.starts)

    def batch(self, rows: np.ndarray, distinct: bool) -> Batch:
        """The batch of these examples. `distinct`: a text that occurs twice is embedded once (right if no dropout)."""
        wanted = {role: ids[rows] for role, ids in self.text_ids.items()}
        flat_ids = np.concatenate(list(wanted.values()))
        present = flat_ids[flat_ids != MISSING]
        places = np.full(len(flat_ids), MISSING)
        if distinct:
            present, places[flat_ids != MISSING] = np.unique(present, return_inverse=True)
        else:
            places[flat_ids != MISSING] = np.arange(len(present))
        columns = dict(zip(wanted, np.split(places, len(wanted)), strict=True))
        sequences = [self.flat[self.starts[i] : self.starts[i + 1]] for i in present]
        skips = None if self.prompt_lengths is None else self.prompt_lengths[present]
        label = None if self.label is None else self.label[rows]
        return Batch(rows, sequences, skips, columns, label, self.examples)


def tokenize_examples(
    examples: Examples,
    prompts: dict[str, str],
    tokenize: Tokenize,
    tokenizer: str | None,
    pooled_from: Callable[[str], int],
) -> TokenTable:
    """Token ids of all examples.

    `prompts`: role -> text put before its texts; `tokenizer`: names the tokenizer and its settings, where the ids are
    worth keeping on disk; `pooled_from`: tokens of a prompt that pooling leaves out.
    """
    ids: dict[tuple[str, str], int] = {}
    text_ids = {
        role: np.array([_number(ids, (prompts[role], text)) for text in texts])
        for role, texts in examples.texts.items()
    }
    flat, starts = load_tokens([prompt + text for prompt, text in ids], tokenize, tokenizer)
    skips = {prompt: pooled_from(prompt) for prompt in prompts.values()}
    prompt_lengths = np.array([skips[prompt] for prompt, _ in ids], dtype=np.int64) if any(skips.values()) else None
    return TokenTable(flat, starts, prompt_lengths, text_ids, examples.label, examples)


def number_texts(examples: Examples) -> np.ndarray:
    """[examples, columns]: a number for each distinct text, MISSING for none, as the samplers take them.

    Without prompts: one text under two prompts has one meaning.
    """
    ids: dict[tuple[str, str], int] = {}
    return np.stack([[_number(ids, ("", text)) for text in texts] for texts in examples.texts.values()], axis=1)


def _number(ids: dict[tuple[str, str], int], key: tuple[str, str | None]) -> int:
    """The number of a text under its prompt, in order of appearance; MISSING for no text."""
    prompt, text = key
    return MISSING if text is None else ids.setdefault((prompt, text), len(ids))
