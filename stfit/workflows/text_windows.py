"""Texts of any number, tokenised ahead of the model in windows that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stfit.data.batching.prefetch import prefetch
from stfit.data.reading.block_reader import Texts, stream_texts
from stfit.data.source import Source
from stfit.distributed import partition, rank
from stfit.encoder.encoder import Encoder

FIRST_WINDOW = 64
"""Texts of the first window: it is small, so that what is wrong shows soon."""
WINDOW = 32_768
"""Most texts of a window; within one, equal texts are embedded once."""
WINDOW_VALUES = 2**24
"""Most numbers in the embeddings of a window."""
WINDOW_WORK = 2**47
"""Most characters times weights of a window, so that a slow model has small ones and little is lost with one."""


@dataclass(frozen=True)
class Inputs:
    """Which texts are embedded."""

    source: Source
    column: str | None = None
    id_column: str | None = None


@dataclass(frozen=True)
class Window:
    """Texts that are embedded together."""

    number: int
    all: Texts
    distinct: list[str]
    place: np.ndarray
    """For each text, where in `distinct` it is."""
    shares: list[np.ndarray]
    """For each process, which of `distinct` it embeds."""
    sequences: list[np.ndarray] | None
    """Token ids of the distinct texts that this process embeds; None where the window is not wanted."""


def stream_text_windows(
    inputs: Inputs, encoder: Encoder, prompt: str, is_done: Callable[[int, Texts], bool] = lambda number, texts: False
) -> Iterator[Window]:
    """All texts of a dataset in order. Reading and tokenising run in a thread, one window ahead of whoever takes them.

    `is_done` tells from a window's number and texts whether its tokens are not wanted any more.
    """

    def tokenised() -> Iterator[Window]:
        blocks = stream_texts(inputs.source, inputs.column, inputs.id_column)
        for number, texts in enumerate(_cut(blocks, encoder)):
            distinct = list(dict.fromkeys(texts.texts))
            row_of = {text: i for i, text in enumerate(distinct)}
            place = np.array([row_of[text] for text in texts.texts], dtype=np.int64)
            shares = partition([len(text) for text in distinct])
            mine = [prompt + distinct[i] for i in shares[rank()]]
            yield Window(
                number, texts, distinct, place, shares, None if is_done(number, texts) else encoder.tokenizer(mine)
            )

    return prefetch(tokenised())


def _cut(blocks: Iterable[Texts], encoder: Encoder) -> Iterator[Texts]:
    """The texts in windows that depend on nothing but the texts before them and the size of the model."""
    weights = sum(weight.numel() for weight in encoder.parameters())
    most_characters = max(2**14, WINDOW_WORK // weights)
    most = FIRST_WINDOW
    ids: list[Any] = []
    texts: list[str] = []
    characters = row = 0
    for block in blocks:
        for id, text in zip(block.ids, block.texts, strict=True):
            ids.append(id)
            texts.append(text)
            characters += len(text)
            if len(texts) >= most or characters >= most_characters:
                yield Texts(ids, texts, block.row)
                ids, texts, characters = [], [], 0
                most = min(WINDOW, WINDOW_VALUES // encoder.embedding_dim)
        row = block.row
    if texts or row == 0:  # no text at all is one window too
        yield Texts(ids, texts, row)
