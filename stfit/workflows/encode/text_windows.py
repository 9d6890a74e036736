"""Any number of texts, tokenized ahead of the model in windows that fit into memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from stfit.data.batching.prefetch import prefetch
from stfit.data.mapping.texts import TextColumns, Texts, stream_texts
from stfit.data.part import Part
from stfit.data.source import Source
from stfit.encoder.encoder import Encoder

FIRST_WINDOW = 64
"""Texts of the first window: small, so that errors show early."""
WINDOW = 32_768
"""Maximum number of texts in a window; equal texts of a window are embedded once."""
WINDOW_VALUES = 2**24
"""Maximum number of values in the embeddings of a window."""
WINDOW_CHARACTERS = 2**23
"""Maximum characters of a window, so that long texts fit into memory."""
WINDOW_WORK = 2**47
"""Maximum characters times weights of a window: a slow model has small windows, so an interruption loses little."""


@dataclass(frozen=True)
class Inputs:
    source: Source
    column: str | None = None
    id_column: str | None = None
    keep: tuple[str, ...] = ()
    """Columns to write beside the embeddings."""
    keep_if_there: tuple[str, ...] = ()
    """Columns to keep as well, if the rows have them."""
    part: Part | None = None


def inputs_to_keep(
    source: Source, column: str | None, id_column: str | None, keep: Sequence[str], part: Part | None = None
) -> Inputs:
    """Inputs of which columns are kept: the column `id` is that of the ids, unless another is."""
    is_id = id_column is None and "id" in keep
    kept = tuple(name for name in keep if not (is_id and name == "id"))
    return Inputs(source, column, "id" if is_id else id_column, kept, part=part)


@dataclass(frozen=True)
class Window:
    number: int
    all: Texts
    distinct: list[str]
    place: np.ndarray
    """For each text, its index in `distinct`."""
    sequences: list[np.ndarray] | None
    """Token ids of the distinct texts; None if the window is done."""


class OpenedTexts(NamedTuple):
    columns: TextColumns | None
    """None if there is no row."""
    blocks: Iterator[Texts]


def open_texts(inputs: Inputs) -> OpenedTexts:
    """Blocks of texts, the first of which is read at once: a missing column is told before a model is loaded."""
    blocks = stream_texts(
        inputs.source, inputs.column, inputs.id_column, inputs.keep, inputs.keep_if_there, inputs.part
    )
    first = list(islice(blocks, 1))
    return OpenedTexts(first[0].columns if first else None, chain(first, blocks))


def stream_text_windows(
    blocks: Iterable[Texts],
    encoder: Encoder,
    prompt: str,
    is_done: Callable[[int, Texts], bool] = lambda number, texts: False,
) -> Iterator[Window]:
    """Reads on and tokenizes in a thread, one window ahead. `is_done(number, texts)`: whether tokens are not needed."""

    def tokenized_windows() -> Iterator[Window]:
        for number, texts in enumerate(_split_windows(blocks, encoder)):
            distinct = list(dict.fromkeys(texts.texts))
            row_of = {text: i for i, text in enumerate(distinct)}
            place = np.array([row_of[text] for text in texts.texts], dtype=np.int64)
            prompted = [prompt + text for text in distinct]
            sequences = None if is_done(number, texts) else encoder.tokenizer(prompted)
            yield Window(number, texts, distinct, place, sequences)

    return prefetch(tokenized_windows())


def _split_windows(blocks: Iterable[Texts], encoder: Encoder) -> Iterator[Texts]:
    """Windows whose bounds depend only on the texts and the size of the model, so that a resumed run repeats them."""
    weights = sum(weight.numel() for weight in encoder.parameters())
    max_characters = min(WINDOW_CHARACTERS, max(2**14, WINDOW_WORK // weights))
    max_texts = FIRST_WINDOW
    ids: list[Any] = []
    texts: list[str] = []
    kept: list[dict[str, Any]] = []
    characters = row = 0
    columns = None
    for block in blocks:
        columns = block.columns
        for id, text, others in zip(block.ids, block.texts, block.kept, strict=True):
            ids.append(id)
            texts.append(text)
            kept.append(others)
            characters += len(text)
            if len(texts) >= max_texts or characters >= max_characters:
                yield Texts(ids, texts, block.row, kept, columns)
                ids, texts, kept, characters = [], [], [], 0
                max_texts = min(WINDOW, WINDOW_VALUES // encoder.embedding_dim)
        row = block.row
    if texts or row == 0:  # an empty input is one empty window
        yield Texts(ids, texts, row, kept, columns)
