"""Examples -> batches of token sequences.

Every distinct text is tokenised once, before the first step; a batch then only picks slices of one flat array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stfit.data.examples import Examples

MISSING = -1
"""Stands where an example has no text in a column (rows with fewer negatives than others)."""

Tokenize = Callable[[Sequence[str]], list[np.ndarray]]


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

    @property
    def tokens(self) -> int:
        """Real tokens of the batch."""
        return sum(len(sequence) for sequence in self.sequences)


@dataclass(frozen=True)
class TokenTable:
    """Examples as token ids: distinct texts end to end, and which of them each example has in each column."""

    flat: np.ndarray
    starts: np.ndarray
    """Text i is flat[starts[i] : starts[i + 1]]."""
    prompt_lengths: np.ndarray | None
    text_ids: dict[str, np.ndarray]
    label: np.ndarray | None

    def __len__(self) -> int:
        return len(next(iter(self.text_ids.values())))

    def matrix(self) -> np.ndarray:
        """[examples, columns]: ids of texts, as the samplers take them."""
        return np.stack(list(self.text_ids.values()), axis=1)

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
        return Batch(rows, sequences, skips, columns, None if self.label is None else self.label[rows])


def tokenize_examples(
    examples: Examples, prompts: dict[str, str], tokenize: Tokenize, pooled_from: Callable[[str], int]
) -> TokenTable:
    """Token ids of all examples.

    `prompts`: role -> text put before its texts; `pooled_from`: tokens of a prompt that pooling leaves out.
    """
    ids: dict[tuple[str, str], int] = {}
    text_ids = {
        role: np.array(
            [MISSING if text is None else ids.setdefault((prompts[role], text), len(ids)) for text in texts],
            dtype=np.int64,
        )
        for role, texts in examples.texts.items()
    }
    sequences = tokenize([prompt + text for prompt, text in ids])
    skips = {prompt: pooled_from(prompt) for prompt in prompts.values()}
    prompt_lengths = np.array([skips[prompt] for prompt, _ in ids], dtype=np.int64) if any(skips.values()) else None
    starts = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    return TokenTable(np.concatenate(sequences), starts, prompt_lengths, text_ids, examples.label)
