"""`stfit similar`: the texts most similar to a query, or the most similar pairs of texts."""

import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.embeddings.read import Embeddings, read_embeddings
from stfit.data.embeddings.writers import EmbeddingRows
from stfit.data.source import is_remote
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import model_in
from stfit.errors import DataError, ModelError, RecipeError
from stfit.evaluation.knn import nearest
from stfit.evaluation.top_pairs import closest_pairs, closest_pairs_approximately
from stfit.io.unicode import is_unicode
from stfit.lazy import torch
from stfit.runtime.device import choose_device
from stfit.similarity import normalize
from stfit.workflows.text_windows import Inputs, open_texts, stream_text_windows

log = logging.getLogger("stfit")


def similar(model: str, inputs: Inputs, queries: list[str], top: int, device: str) -> dict[str, Any]:
    """For each query, the `top` most similar texts by cosine, best first. Only the best texts are kept in memory."""
    for number, query in enumerate(queries, start=1):
        if not is_unicode(query):
            raise RecipeError(f"--query {number} is no Unicode text: {query!a}; it has bytes that are not UTF-8")
    stored = _stored_embeddings(inputs)
    encoder = load_encoder(model_in(model), choose_device(device))
    query_prompt, prompt = (encoder.role_prompt(role, None) for role in ("query", "corpus"))
    dim = _dim_of_queries(stored, inputs, encoder, model) if stored else None
    query_qd = encoder.encode(queries, prompt=query_prompt, normalize=True, truncate_dim=dim)
    if not np.isfinite(query_qd).all():
        raise ModelError(f"{model}: its embedding of a query is not finite: are its weights damaged?")
    best = _search(query_qd, stored.windows if stored else _embed_texts(inputs, encoder, prompt), top)
    if not any(best):
        raise DataError(f"{inputs.source.dataset}: contains no text")
    pairs = zip(queries, best, strict=True)
    return _as_json({"queries": [{"query": query, "nearest": found} for query, found in pairs]})


def _stored_embeddings(inputs: Inputs) -> Embeddings | None:
    """Those of a file that `stfit encode` wrote; None for texts. With a column, a file's texts are meant."""
    dataset = inputs.source.dataset
    return None if inputs.column or is_remote(dataset) else read_embeddings(Path(dataset))


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


def _embed_texts(inputs: Inputs, encoder: Encoder, prompt: str, known: Collection[str] = ()) -> Iterator[EmbeddingRows]:
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


def _searchable(windows: Iterable[EmbeddingRows]) -> Iterator[EmbeddingRows]:
    """The rows with a finite embedding and, where the window has texts, the first row of each that is not blank."""
    broken = 0
    for rows in windows:
        is_found = np.isfinite(rows.values).all(axis=1)
        broken += int((~is_found).sum())
        if texts := rows.columns.get("text"):
            first: dict[str, int] = {}
            is_found &= [
                isinstance(text, str) and bool(text.strip()) and first.setdefault(text, i) == i
                for i, text in enumerate(texts)
            ]
        if is_found.any():
            yield rows.take(np.flatnonzero(is_found))
    if broken:
        log.warning("%d texts have an embedding that is not finite, and are similar to nothing", broken)


def _search(query_qd: np.ndarray, windows: Iterable[EmbeddingRows], top: int) -> list[list[dict[str, Any]]]:
    """For each query, the records of the `top` most similar rows."""
    best: list[dict[Any, dict[str, Any]]] = [{} for _ in query_qd]
    count = 0
    for rows in _searchable(windows):
        keys = _keys(rows, count)
        score_qk, index_qk = nearest(query_qd, [rows.values], top, "cosine")
        for found, score_k, index_k in zip(best, score_qk.tolist(), index_qk.tolist(), strict=True):
            for score, index in zip(score_k, index_k, strict=True):
                found.setdefault(keys[index], _record(rows, index) | {"similarity": score})
        best = [dict(sorted(found.items(), key=lambda item: -item[1]["similarity"])[:top]) for found in best]
        count += len(keys)
    return [list(found.values()) for found in best]


def _keys(rows: EmbeddingRows, start: int) -> list[Any]:
    """What tells rows apart: their texts, or their numbers in the file if it holds no texts."""
    return rows.columns.get("text") or list(range(start, start + len(rows.ids)))


def _record(rows: EmbeddingRows, index: int) -> dict[str, Any]:
    """The cells of a row, its text as the last."""
    names = sorted(rows.columns, key=lambda name: name == "text")
    return {"id": rows.ids[index]} | {name: rows.columns[name][index] for name in names}


def _as_json(result: dict[str, Any]) -> dict[str, Any]:
    """Cells may be of any type that a table holds, such as dates. Done at the end, for the few rows that are found."""
    return dict(json.loads(json.dumps(result, default=str)))


def closest(model: str, inputs: Inputs, top: int, device: str, *, approximate: bool = False) -> dict[str, Any]:
    """The `top` pairs of distinct texts with the highest cosine. All embeddings are kept in memory."""
    known: dict[Any, dict[str, Any]] = {}
    if stored := _stored_embeddings(inputs):
        windows = stored.windows
    else:
        encoder = load_encoder(model_in(model), choose_device(device))
        windows = _embed_texts(inputs, encoder, encoder.prompt(None), known)
    start = time.perf_counter()
    parts = []
    for rows in _searchable(windows):
        new = [(index, key) for index, key in enumerate(_keys(rows, len(known))) if key not in known]
        known |= {key: _record(rows, index) for index, key in new}
        parts.append(normalize(torch.from_numpy(rows.values[[index for index, _ in new]])).numpy())
    if len(known) < 2:
        raise DataError(f"{inputs.source.dataset}: contains {len(known)} distinct texts, but a pair needs two")
    embedded = time.perf_counter()
    find = closest_pairs_approximately if approximate else closest_pairs
    score_k, pair_k = find(np.concatenate(parts), top)
    listed = list(known.values())
    pairs = [
        {"similarity": score} | _numbered(listed[first], 1) | _numbered(listed[second], 2)
        for score, (first, second) in zip(score_k.tolist(), pair_k.tolist(), strict=True)
    ]
    seconds = {"encoding": embedded - start, "comparing": time.perf_counter() - embedded}
    spent = {f"seconds_{name}": round(value, 3) for name, value in seconds.items()}
    return _as_json({"texts": len(listed), **spent, "pairs": pairs})


def _numbered(record: dict[str, Any], number: int) -> dict[str, Any]:
    """The keys of one side of a pair: id1, text1, ..."""
    return {f"{name}{number}": cell for name, cell in record.items()}
