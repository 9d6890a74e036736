"""`stfit similar`: the texts most similar to a query, or the most similar pairs of texts."""

import json
import logging
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.embeddings.read import Embeddings
from stfit.data.embeddings.writers import EmbeddingRows
from stfit.data.part import Part, rows_file
from stfit.data.reading.local_files import input_paths
from stfit.data.saved_blocks import SavedBlocks
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import model_in, paths_of_model
from stfit.errors import DataError, ModelError, RecipeError
from stfit.evaluation.approximate import build_index, measure_recall, offer_index, top_pairs_approximately
from stfit.evaluation.knn import nearest
from stfit.evaluation.top_pairs import NO_PAIRS, TopPairs, block_count, compare_block
from stfit.io.atomic import atomic_write
from stfit.io.outputs import require_output
from stfit.io.unicode import is_unicode
from stfit.progress import task
from stfit.runtime.device import choose_device
from stfit.runtime.run_folder import lock_folder
from stfit.runtime.signals import handle_signals_resumably
from stfit.workflows.distinct_texts import (
    DistinctTexts,
    Record,
    distinct_stored,
    embed_distinct,
    embed_texts,
    record_of,
    searchable_rows,
    stored_embeddings,
    warn_of_broken,
)
from stfit.workflows.text_windows import Inputs

log = logging.getLogger("stfit")

SAVE_SECONDS = 10
"""How often what was found is saved: an interruption loses no more."""


def similar(model: str, inputs: Inputs, queries: list[str], top: int, device: str) -> dict[str, Any]:
    """For each query, the `top` most similar texts by cosine, best first. Only the best texts are kept in memory."""
    for number, query in enumerate(queries, start=1):
        if not is_unicode(query):
            raise RecipeError(f"--query {number} is no Unicode text: {query!a}; it has bytes that are not UTF-8")
    stored = stored_embeddings(inputs)
    encoder = load_encoder(model_in(model), choose_device(device))
    query_prompt, prompt = (encoder.role_prompt(role, None) for role in ("query", "corpus"))
    dim = _dim_of_queries(stored, inputs, encoder, model) if stored else None
    query_qd = encoder.encode(queries, prompt=query_prompt, normalize=True, truncate_dim=dim)
    if not np.isfinite(query_qd).all():
        raise ModelError(f"{model}: its embedding of a query is not finite: are its weights damaged?")
    windows = warn_of_broken(stored.windows if stored else embed_texts(inputs, encoder, prompt))
    best = _search(query_qd, windows, top, encoder.device.type)
    if not any(best):
        raise DataError(f"{inputs.source.dataset}: contains no text")
    pairs = zip(queries, best, strict=True)
    return _as_json({"queries": [{"query": query, "nearest": found} for query, found in pairs]})


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


def _search(query_qd: np.ndarray, windows: Iterable[EmbeddingRows], top: int, device: str) -> list[list[Record]]:
    """For each query, the records of the `top` most similar rows."""
    best: list[dict[Any, Record]] = [{} for _ in query_qd]
    start = 0
    for window in windows:
        rows = searchable_rows(window)
        # What tells rows apart: their texts, or their numbers in the file if it holds no texts.
        keys = window.columns.get("text") or range(start, start + len(window.values))
        start += len(window.values)
        if not rows:
            continue
        score_qk, index_qk = nearest(query_qd, [window.values[rows]], top, "cosine", device)
        for found, score_k, index_k in zip(best, score_qk.tolist(), index_qk.tolist(), strict=True):
            for score, index in zip(score_k, index_k, strict=True):
                record = record_of(window, rows[index]) | {"similarity": score}
                found.setdefault(keys[rows[index]], record)
        best = [dict(sorted(found.items(), key=lambda item: -item[1]["similarity"])[:top]) for found in best]
    return [list(found.values()) for found in best]


def _as_json(result: dict[str, Any]) -> dict[str, Any]:
    """Cells may be of any type that a table holds, such as dates. Done at the end, for the few rows that are found."""
    return dict(json.loads(json.dumps(result, default=str)))


def closest(
    model: str,
    inputs: Inputs,
    top: int,
    device: str,
    *,
    approximate: bool = False,
    output: Path | None = None,
    part: Part | None = None,
) -> dict[str, Any]:
    """The `top` pairs of distinct texts with the highest cosine: returned, or written to `output`.

    Of a part of the comparisons, `output` is a folder with a file of each part, and the best of all parts are those of
    the whole. With `output`, the same command resumes after InterruptedRun.
    """
    target = rows_file(output, part) if output else None
    if target:
        require_output(target, [*input_paths(inputs.source), *paths_of_model(Path(model))])
    device = choose_device(device)
    start = time.perf_counter()
    if stored := stored_embeddings(inputs):
        texts = distinct_stored(stored, inputs)
    else:
        texts = embed_distinct(inputs, load_encoder(model_in(model), device))
    count = len(texts.matrix)
    if count < 2:
        raise DataError(f"{inputs.source.dataset}: contains {count} distinct texts, but a pair needs two")
    embedded = time.perf_counter()
    result: dict[str, Any] = {"texts": count}
    if approximate:
        index = build_index(texts.matrix)
        result["recall"] = round(measure_recall(index, texts.matrix), 4)
        found = top_pairs_approximately(index, texts.matrix, top)
    else:
        offer_index(count * count // 2, texts.matrix.dim)
        found = _compare_resumably(texts, top, device, part or Part(1, 1), _kept(target) if target else None)
    pairs = _pairs(found, texts)
    result["seconds_encoding"] = round(embedded - start, 3)
    result["seconds_comparing"] = round(time.perf_counter() - embedded, 3)
    if target is None:
        return _as_json(result | {"pairs": pairs})
    atomic_write(target, "".join(json.dumps(pair, ensure_ascii=False, default=str) + "\n" for pair in pairs))
    _kept(target).delete()
    return _as_json({"output": str(output)} | result | {"rows": len(pairs)})


def _kept(target: Path) -> SavedBlocks:
    return SavedBlocks(target.with_name(target.name + ".blocks"))


def _compare_resumably(texts: DistinctTexts, top: int, device: str, part: Part, saved: SavedBlocks | None) -> TopPairs:
    if saved is None:
        return _compare(texts, top, device, part, None)
    kept = f"what was found is kept in {saved.folder}"
    with lock_folder(saved.folder / "output"), handle_signals_resumably(lambda: kept):
        return _compare(texts, top, device, part, saved)


def _compare(texts: DistinctTexts, top: int, device: str, part: Part, saved: SavedBlocks | None) -> TopPairs:
    """The best pairs of every `part.count`-th block with all later ones."""
    count = block_count(texts.matrix)
    numbers = range(part.number - 1, count, part.count)
    digest = sha256(json.dumps([texts.digest, len(texts.matrix), top, str(part)]).encode()).hexdigest()
    kept = saved.read(0, digest) if saved else None
    done, best = (kept[0], TopPairs.of_lists(*kept[1:])) if kept else (0, NO_PAIRS)
    doing = f"comparing {len(texts.matrix):,} texts with each other"
    saved_at = time.monotonic()
    with task(doing, sum(count - number for number in numbers)) as step:
        for i, number in enumerate(numbers):
            if i >= done:
                best = compare_block(texts.matrix, number, best, top, device)
            step.advance(count - number)
            if saved and time.monotonic() - saved_at >= SAVE_SECONDS:
                saved.write(0, digest, [i + 1, best.score_k.tolist(), best.pair_k.tolist()])
                saved_at = time.monotonic()
    return best


def _pairs(found: TopPairs, texts: DistinctTexts) -> list[Record]:
    records = texts.read_records(set(found.pair_k.ravel().tolist()))
    return [
        {"similarity": score} | _numbered(records[first], 1) | _numbered(records[second], 2)
        for score, (first, second) in zip(found.score_k.tolist(), found.pair_k.tolist(), strict=True)
    ]


def _numbered(record: Record, number: int) -> Record:
    """The keys of one side of a pair: id1, text1, ..."""
    return {f"{name}{number}": cell for name, cell in record.items()}
