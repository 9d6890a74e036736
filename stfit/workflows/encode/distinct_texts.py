"""The distinct texts of a dataset with their embeddings: in memory, or on disk as `stfit encode` wrote them."""

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from typing import Any

import numpy as np

from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.data.embeddings.read import Embeddings, map_embeddings, read_embeddings
from stfit.data.embeddings.writers import EmbeddingRows
from stfit.data.object_store import path_of
from stfit.data.reading.sample import fingerprint_sample_of
from stfit.data.source import is_remote
from stfit.encoder.encoder import Encoder
from stfit.workflows.encode.text_windows import Inputs, open_texts, stream_text_windows

log = logging.getLogger("stfit")

Record = dict[str, Any]
"""The id of a text, kept cells, and the text as the last."""


@dataclass(frozen=True)
class DistinctTexts:
    matrix: EmbeddingMatrix
    read_records: Callable[[Collection[int]], dict[int, Record]]
    """Of these rows of the matrix."""
    digest: str
    """Of the texts and their embeddings."""


def stored_embeddings(inputs: Inputs, any_type: bool = False) -> Embeddings | None:
    """Those of a file that `stfit encode` wrote; None for texts. With a column, a file's texts are meant.

    `any_type`: as they are stored, in bytes too; otherwise as float32.
    """
    dataset = inputs.source.dataset
    return None if inputs.column or is_remote(dataset) else read_embeddings(path_of(dataset), any_type)


def distinct_stored(stored: Embeddings, inputs: Inputs) -> DistinctTexts:
    """Of each text the first row that can be compared; rows without texts are all distinct."""
    path = path_of(inputs.source.dataset)
    mapped = map_embeddings(path)
    rows: list[int] = []
    arrays = []
    known: set[bytes] = set()
    start = 0
    for window in warn_of_broken(stored.windows):
        for index in searchable_rows(window):
            text = window.columns["text"][index] if "text" in window.columns else None
            key = text_digest(text) if text is not None else b""
            if not key or key not in known:
                rows.append(start + index)
                known.add(key)
        if mapped is None:
            arrays.append(window.values)
        start += len(window.values)
    row_n = np.array(rows, dtype=np.int64)

    def read_records(wanted: Collection[int]) -> dict[int, Record]:
        place = {int(row_n[row]): row for row in wanted}
        again = read_embeddings(path)
        assert again is not None
        found, first = {}, 0
        for window in again.windows:
            for index in range(len(window.values)):
                if (row := place.get(first + index)) is not None:
                    found[row] = record_of(window, index)
            first += len(window.values)
        return found

    files = sorted(file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    return DistinctTexts(EmbeddingMatrix(mapped or arrays, row_n), read_records, fingerprint_sample_of(files))


def text_digest(text: str) -> bytes:
    """Few bytes that stand for a text, to know it again."""
    return blake2b(text.encode(), digest_size=16).digest()


def embed_distinct(inputs: Inputs, encoder: Encoder, prompt: str) -> DistinctTexts:
    """All in memory."""
    records: list[Record] = []
    arrays = []
    known: set[str] = set()
    digest = sha256(encoder.fingerprint.encode())
    for window in warn_of_broken(embed_texts(inputs, encoder, prompt, known)):
        rows = [index for index in searchable_rows(window) if window.columns["text"][index] not in known]
        known |= {window.columns["text"][index] for index in rows}
        records += [record_of(window, index) for index in rows]
        arrays.append(window.values[rows])
        digest.update("\0".join(window.columns["text"]).encode())
    empty = np.empty((0, encoder.embedding_dim), dtype=np.float32)
    matrix = EmbeddingMatrix(arrays or [empty])
    return DistinctTexts(matrix, lambda wanted: {row: records[row] for row in wanted}, digest.hexdigest())


def embed_texts(inputs: Inputs, encoder: Encoder, prompt: str, known: Collection[str] = ()) -> Iterator[EmbeddingRows]:
    """The distinct texts of each window but those that are `known`, with the ids and titles that their rows have."""
    log.info("embedding the texts of %s", inputs.source.dataset)
    texts = open_texts(replace(inputs, keep_if_there=("_id", "id", "title"))).blocks
    for window in stream_text_windows(texts, encoder, prompt):
        assert window.sequences is not None
        new = [i for i, text in enumerate(window.distinct) if text.strip() and text not in known]
        sequences = [window.sequences[i] for i in new]
        values = encoder.embed(sequences, encoder.prompt_skip(prompt), normalize=True)
        first_rows = np.unique(window.place, return_index=True)[1][new].tolist()
        kept = [window.all.kept[row] for row in first_rows]
        numbers = [window.all.ids[row] for row in first_rows]
        ids = [cells.get("_id", cells.get("id", number)) for cells, number in zip(kept, numbers, strict=True)]
        titles = {"title": [cells.get("title") for cells in kept]} if any("title" in cells for cells in kept) else {}
        yield EmbeddingRows(ids, titles | {"text": [window.distinct[i] for i in new]}, values)


def searchable_rows(window: EmbeddingRows) -> list[int]:
    """The rows with a finite embedding and, where the window has texts, the first row of each that is not blank."""
    is_found = np.isfinite(window.values).all(axis=1)
    if texts := window.columns.get("text"):
        first: dict[str, int] = {}
        is_found &= [
            isinstance(text, str) and bool(text.strip()) and first.setdefault(text, i) == i
            for i, text in enumerate(texts)
        ]
    return np.flatnonzero(is_found).tolist()


def warn_of_broken(windows: Iterator[EmbeddingRows]) -> Iterator[EmbeddingRows]:
    broken = 0
    for window in windows:
        broken += int((~np.isfinite(window.values).all(axis=1)).sum())
        yield window
    if broken:
        log.warning("%d texts have an embedding that is not finite, and are similar to nothing", broken)


def record_of(window: EmbeddingRows, index: int) -> Record:
    names = sorted(window.columns, key=lambda name: name == "text")
    return {"id": window.ids[index]} | {name: window.columns[name][index] for name in names}
