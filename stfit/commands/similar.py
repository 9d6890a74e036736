"""`stfit similar`: the most similar pairs of texts, or communities of similar texts."""

import json
import logging
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from stfit.data.part import Part, rows_file
from stfit.data.reading.local_files import input_paths
from stfit.data.saved_blocks import SavedBlocks
from stfit.encoder.build import load_encoder
from stfit.encoder.folder.resolve import model_in, paths_of_model
from stfit.errors import DataError
from stfit.io.atomic import atomic_write
from stfit.io.outputs import require_output
from stfit.neighbors.approximate import build_index, measure_recall, offer_index, top_pairs_approximately
from stfit.neighbors.communities import find_communities
from stfit.neighbors.top_pairs import NO_PAIRS, TopPairs, block_count, compare_block
from stfit.progress import task
from stfit.runtime.device import choose_device
from stfit.runtime.run_folder import lock_folder
from stfit.runtime.signals import handle_signals_resumably
from stfit.workflows.encode.distinct_texts import (
    DistinctTexts,
    Record,
    distinct_stored,
    embed_distinct,
    stored_embeddings,
)
from stfit.workflows.encode.search_corpus import as_json, search_corpus
from stfit.workflows.encode.text_windows import Inputs

log = logging.getLogger("stfit")

MIN_SIZE = 10
"""Texts of a cluster."""
SAVE_SECONDS = 10
"""How often what was found is saved: an interruption loses no more."""


def similar(model: str, inputs: Inputs, queries: list[str], top: int, device: str) -> dict[str, Any]:
    """For each query, the `top` most similar texts by cosine, best first: `stfit search` in its first spelling."""
    found, _ = search_corpus(model, inputs, queries, top, device)
    answers = zip(queries, found, strict=True)
    return {"queries": [{"query": query, "nearest": as_json(nearest)} for query, nearest in answers]}


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
    texts = _load_texts(model, inputs, device)
    count = len(texts.matrix)
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
        return as_json(result | {"pairs": pairs})
    atomic_write(target, "".join(json.dumps(pair, ensure_ascii=False, default=str) + "\n" for pair in pairs))
    _kept(target).delete()
    return as_json({"output": str(output)} | result | {"rows": len(pairs)})


def communities(
    model: str, inputs: Inputs, threshold: float, min_size: int, device: str, output: Path | None = None
) -> dict[str, Any]:
    """Groups of at least `min_size` texts, each with a cosine of at least `threshold` with the first of its group.

    The largest comes first; returned, or written to `output`, a line for each.
    """
    if output:
        require_output(rows_file(output, None), [*input_paths(inputs.source), *paths_of_model(Path(model))])
    device = choose_device(device)
    start = time.perf_counter()
    texts = _load_texts(model, inputs, device)
    embedded = time.perf_counter()
    found = find_communities(texts.matrix, threshold, min_size, device)
    result: dict[str, Any] = {"texts": len(texts.matrix), "clustered": sum(len(member) for member, _ in found)}
    result["seconds_encoding"] = round(embedded - start, 3)
    result["seconds_comparing"] = round(time.perf_counter() - embedded, 3)
    records = texts.read_records({row for member, _ in found for row in member.tolist()})
    clusters = as_json(
        [
            {
                "size": len(member),
                "members": [
                    records[row] | {"similarity": cosine}
                    for row, cosine in zip(member.tolist(), score.tolist(), strict=True)
                ],
            }
            for member, score in found
        ]
    )
    if output is None:
        return result | {"clusters": clusters}
    atomic_write(output, "".join(json.dumps(cluster, ensure_ascii=False) + "\n" for cluster in clusters))
    return {"output": str(output)} | result | {"rows": len(clusters)}


def _load_texts(model: str, inputs: Inputs, device: str) -> DistinctTexts:
    if stored := stored_embeddings(inputs):
        texts = distinct_stored(stored, inputs)
    else:
        encoder = load_encoder(model_in(model), device)
        texts = embed_distinct(inputs, encoder, encoder.prompt(None))
    if len(texts.matrix) < 2:
        raise DataError(f"{inputs.source.dataset}: contains {len(texts.matrix)} distinct texts, too few to compare")
    return texts


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
