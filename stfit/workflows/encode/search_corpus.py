"""The nearest texts of a corpus for each query, in one pass over embeddings on disk or texts as they are embedded.

Tensor names: q = queries, k = neighbors, d = embedding dim.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.embeddings.read import Embeddings
from stfit.data.embeddings.writers import EmbeddingRows
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.export.quantization import dequantize, load_ranges, ranges_of_model, unpack_signs
from stfit.encoder.folder.resolve import model_in
from stfit.errors import DataError, ModelError, RecipeError
from stfit.io.unicode import is_unicode
from stfit.neighbors.approximate import approximately_nearest, build_index, measure_recall
from stfit.neighbors.exact import best_of_both, nearest
from stfit.runtime.device import choose_device
from stfit.workflows.encode.distinct_texts import (
    DistinctTexts,
    Record,
    distinct_stored,
    embed_distinct,
    embed_texts,
    record_of,
    searchable_rows,
    stored_embeddings,
    text_digest,
    warn_of_broken,
)
from stfit.workflows.encode.text_windows import Inputs

log = logging.getLogger("stfit")

BITS = 8


def search_corpus(
    model: str,
    inputs: Inputs,
    queries: Sequence[str],
    top: int,
    device: str,
    *,
    approximate: bool = False,
    calibration: Path | None = None,
) -> tuple[list[list[Record]], float | None]:
    """For each query, the `top` most similar texts by cosine, best first, each with its `similarity`.

    Equal texts are one. Only the best are in memory, unless an index is asked for, whose recall is the second.
    `calibration`: the ranges of embeddings in int8.
    """
    for number, query in enumerate(queries, start=1):
        if not is_unicode(query):
            raise RecipeError(f"query {number} is no Unicode text: {query!a}; it has bytes that are not UTF-8")
    stored = stored_embeddings(inputs, any_type=not approximate)
    encoder = load_encoder(model_in(model), choose_device(device))
    if stored and not approximate:
        stored = _decoded(stored, encoder, inputs, calibration or ranges_of_model(model))
    dim = _dim_of_queries(stored, inputs, encoder, model) if stored else None
    prompts = [encoder.role_prompt(role, None) for role in ("query", "corpus")]
    query_qd = encoder.encode(list(queries), prompt=prompts[0], normalize=True, truncate_dim=dim)
    if not np.isfinite(query_qd).all():
        raise ModelError(f"{model}: its embedding of a query is not finite: are its weights damaged?")
    if approximate:
        texts = distinct_stored(stored, inputs) if stored else embed_distinct(inputs, encoder, prompts[1])
        return _search_index(query_qd, texts, inputs, top)
    windows = warn_of_broken(stored.windows if stored else embed_texts(inputs, encoder, prompts[1]))
    found = search_windows(query_qd, windows, top, encoder.device.type)
    if not any(found):
        raise _no_text(inputs)
    return found, None


def _no_text(inputs: Inputs) -> DataError:
    return DataError(f"{inputs.source.dataset}: contains no text")


def search_windows(
    query_qd: np.ndarray, windows: Iterable[EmbeddingRows], top: int, device: str = "cpu"
) -> list[list[Record]]:
    """For each query, the records of the `top` most similar rows; of equal texts, the first."""
    score_qk = np.empty((len(query_qd), 0), dtype=np.float32)
    place_qk = np.empty((len(query_qd), 0), dtype=np.int64)
    records: dict[int, Record] = {}
    known: set[bytes] = set()
    start = 0
    for window in windows:
        rows = _new_rows(window, known)
        if len(rows):
            found_qk, index_qk = nearest(query_qd, [_at(window.values, rows)], top, "cosine", device)
            score_qk, place_qk = best_of_both((score_qk, place_qk), (found_qk, start + rows[index_qk]), top)
            kept = np.unique(place_qk)
            records = {place: records[place] for place in kept[kept < start].tolist()}
            records |= {place: record_of(window, place - start) for place in kept[kept >= start].tolist()}
        start += len(window.values)
    return [
        [records[place] | {"similarity": score} for place, score in zip(places, scores, strict=True)]
        for places, scores in zip(place_qk.tolist(), score_qk.tolist(), strict=True)
    ]


def _new_rows(window: EmbeddingRows, known: set[bytes]) -> np.ndarray:
    """The rows that can be found, without texts of earlier windows; their texts are known then."""
    rows = np.array(searchable_rows(window), dtype=np.int64)
    texts = window.columns.get("text")
    if texts is None:
        return rows
    keys = [text_digest(str(texts[row])) for row in rows.tolist()]
    is_new = np.array([key not in known for key in keys], dtype=bool)
    known.update(keys)
    return rows[is_new]


def _at(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return values if len(rows) == len(values) else values[rows]


def _search_index(
    query_qd: np.ndarray, texts: DistinctTexts, inputs: Inputs, top: int
) -> tuple[list[list[Record]], float]:
    if not len(texts.matrix):
        raise _no_text(inputs)
    index = build_index(texts.matrix)
    score_qk, place_qk = approximately_nearest(index, query_qd, top)
    records = texts.read_records(np.unique(place_qk).tolist())
    found = [
        [records[place] | {"similarity": score} for place, score in zip(places, scores, strict=True) if score > -np.inf]
        for places, scores in zip(place_qk.tolist(), score_qk.tolist(), strict=True)
    ]
    return found, measure_recall(index, texts.matrix)


def _decoded(stored: Embeddings, encoder: Encoder, inputs: Inputs, calibration: Path | None) -> Embeddings:
    """Embeddings of bytes or signs as numbers; those of floats as they are."""
    first = next(stored.windows)
    windows, dtype, dim = chain([first], stored.windows), first.values.dtype, stored.dim
    if dtype.kind == "f":
        return stored._replace(windows=_as_float32(windows))
    if dtype.itemsize == 1 and dim * BITS <= encoder.embedding_dim:
        return Embeddings(dim * BITS, (replace(window, values=unpack_signs(window.values)) for window in windows))
    if dtype.itemsize != 1 or calibration is None:
        raise DataError(
            f"{inputs.source.dataset} holds whole numbers ({dtype}) in {dim} dimensions: search embeddings of bytes "
            "with --calibration FILE, the ranges that `stfit encode` wrote for them, if the model has none"
        )
    ranges = load_ranges(calibration, dim, {"model": encoder.fingerprint})
    if ranges is None:
        raise DataError(f"{calibration} does not exist")
    return Embeddings(dim, (replace(window, values=dequantize(window.values, ranges)) for window in windows))


def _as_float32(windows: Iterable[EmbeddingRows]) -> Iterator[EmbeddingRows]:
    for window in windows:
        yield replace(window, values=np.require(window.values, np.float32, "W"))  # torch wants to write to it


def _dim_of_queries(stored: Embeddings, inputs: Inputs, encoder: Encoder, model: str) -> int:
    """That of the file, which may have been truncated. Raises DataError if the model's embeddings are too short."""
    if stored.dim > encoder.embedding_dim:
        raise DataError(
            f"{inputs.source.dataset} holds embeddings of {stored.dim} dimensions, and those of {model} have "
            f"{encoder.embedding_dim}: search with the model that wrote the file, or encode again"
        )
    if stored.dim < encoder.output_dim:
        log.info("queries are cut to %d of %d dimensions, those of the file", stored.dim, encoder.output_dim)
    return stored.dim


def as_json(found: Any) -> Any:
    """Cells may be of any type that a table holds, such as dates. Done at the end, for the few rows that are found."""
    return json.loads(json.dumps(found, default=str))
