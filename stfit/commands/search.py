"""`stfit search`: the texts of a corpus that are most similar to each query."""

import json
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from stfit.data.mapping.texts import source_of_texts
from stfit.data.reading.local_files import input_paths
from stfit.encoder.folder.resolve import paths_of_model
from stfit.errors import DataError, RecipeError
from stfit.io.atomic import atomic_write
from stfit.io.outputs import require_output
from stfit.workflows.encode.search_corpus import as_json, search_corpus
from stfit.workflows.encode.text_windows import Inputs, open_texts

RUN_SUFFIXES = (".trec", ".run")
"""Of files in the format of trec_eval: query id, Q0, document id, rank, score, name of the run."""
ID_COLUMNS = ("_id", "id")


def search(
    model: str,
    corpus: Inputs,
    queries: list[str],
    queries_from: Inputs | None,
    top: int,
    device: str,
    output: Path | None = None,
    *,
    approximate: bool = False,
    calibration: Path | None = None,
) -> dict[str, Any]:
    """The `top` texts of each query: as `queries`, or written to `output`, as jsonl or as a run file."""
    if output is not None:
        read = [corpus, *([queries_from] if queries_from else [])]
        inputs = list(chain.from_iterable(input_paths(each.source) for each in read))
        require_output(output, [*inputs, *paths_of_model(Path(model))])
        if output.suffix not in (".jsonl", *RUN_SUFFIXES):
            raise RecipeError(f"{output}: search writes .jsonl, or {' and '.join(RUN_SUFFIXES)} for trec_eval")
    asked = [(str(number), query) for number, query in enumerate(queries, start=1)]
    asked += _read_queries(queries_from) if queries_from else []
    start = time.perf_counter()
    texts = [query for _, query in asked]
    found, recall = search_corpus(model, corpus, texts, top, device, approximate=approximate, calibration=calibration)
    result: dict[str, Any] = {"count": len(asked), "seconds": round(time.perf_counter() - start, 3)}
    result |= {} if recall is None else {"recall": round(recall, 4)}
    answers = [
        {"id": key, "query": query, "nearest": as_json(nearest)}
        for (key, query), nearest in zip(asked, found, strict=True)
    ]
    if output is None:
        return result | {"queries": answers}
    lines = (
        _run_lines(answers)
        if output.suffix in RUN_SUFFIXES
        else (json.dumps(each, ensure_ascii=False) for each in answers)
    )
    atomic_write(output, "".join(f"{line}\n" for line in lines))
    return result | {"output": str(output)}


def _read_queries(inputs: Inputs) -> list[tuple[str, str]]:
    """Id (the row's number, if it has none) and text of each query that is not blank."""
    queries: list[tuple[str, str]] = []
    for block in open_texts(inputs).blocks:
        for number, text, cells in zip(block.ids, block.texts, block.kept, strict=True):
            if text.strip():
                key = next((cells[name] for name in ID_COLUMNS if cells.get(name) is not None), number)
                queries.append((str(key), text))
    if not queries:
        raise DataError(f"{inputs.source.dataset}: contains no query")
    return queries


def source_of_queries(dataset: str, column: str | None) -> Inputs:
    return Inputs(source_of_texts(dataset, None), column, keep_if_there=ID_COLUMNS)


def _run_lines(answers: list[dict[str, Any]]) -> Iterator[str]:
    for answer in answers:
        for rank, document in enumerate(answer["nearest"], start=1):
            ids = [str(each) for each in (answer["id"], document["id"])]
            if wrong := next((each for each in ids if not each or any(map(str.isspace, each))), None):
                raise DataError(f"the id {wrong!r} can't stand in a run file, whose columns are separated by spaces")
            yield f"{ids[0]} Q0 {ids[1]} {rank} {document['similarity']:.6f} stfit"
