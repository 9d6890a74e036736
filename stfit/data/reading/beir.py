"""Retrieval datasets in BEIR's layout: a corpus, queries, and for every split which documents answer which query.

The rows of such a split are its pairs: a query, and a document that is relevant to it. The files' own rows are the
splits `corpus` and `queries`.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stfit.data.mapping.cells import as_text, number_in
from stfit.data.source import TableSource
from stfit.data.table import Table, build_table
from stfit.errors import DataError, did_you_mean

QRELS: dict[str, str | list[str]] = {"query": "query-id", "corpus": "corpus-id"}
BEIR_ID: dict[str, str | list[str]] = {"id": "_id"}
"""Role -> column in the files of a BEIR dataset: judgments (QRELS), and corpus and queries (BEIR_ID)."""

JUDGMENTS = "qrels"
"""Folder of the judgments, a file for every split."""

Tables = tuple[TableSource, TableSource, TableSource]
"""Corpus, queries and judgments."""


def document_text(title: str, text: str) -> str:
    """The text of a document everywhere: for training, evaluation, mining, encoding and search."""
    return f"{title} {text}".strip()


def is_document(columns: list[str]) -> bool:
    """Whether a row with these columns is a document or query of such a dataset."""
    return {"_id", "text"} <= {*columns}


def is_beir_folder(path: Path) -> bool:
    return all(any(path.glob(pattern)) for pattern in ("corpus.jsonl*", "queries.jsonl*"))


def folder_tables(folder: Path, split: str) -> Tables | None:
    """The files of a BEIR folder; None for any other layout."""
    corpus, queries, qrels = (
        next(iter(sorted(folder.glob(pattern))), None)
        for pattern in ("corpus.jsonl*", "queries.jsonl*", f"qrels/{glob.escape(split)}.tsv*")
    )
    if corpus is None or queries is None:
        return None
    if qrels is None:
        splits = sorted(path.name.partition(".")[0] for path in folder.glob("qrels/*.tsv*"))
        hint = did_you_mean(split, splits) or "there is none"
        raise DataError(f"{folder} has no judgments for the split `{split}` in qrels/: {hint}")
    return (
        TableSource(dataset=str(corpus), columns=BEIR_ID),
        TableSource(dataset=str(queries), columns=BEIR_ID),
        TableSource(dataset=str(qrels), columns=QRELS),
    )


def hub_tables(source: TableSource) -> Tables:
    """The configurations of a Hub dataset in MTEB's layout; BeIR has a separate repository for judgments."""
    dataset, revision = str(source.dataset), source.revision
    is_beir = dataset.startswith("BeIR/")
    corpus, queries = (
        TableSource(dataset=dataset, config=name, split=name, revision=revision, columns=BEIR_ID)
        for name in ("corpus", "queries")
    )
    qrels = TableSource(
        dataset=f"{dataset}-qrels" if is_beir else dataset,
        config=None if is_beir else "default",
        split=source.split,
        revision=None if is_beir else revision,
        columns=QRELS,
    )
    return corpus, queries, qrels


def join_pairs(judgments: Table, queries: Table, corpus: Table, origin: str) -> Table:
    """The pairs of a split whose score is above 0; what the other tables lack is None, and is dropped like any gap.

    Columns: `anchor` (the query), `positive` (title and text of the document), each of these by itself, `score`, ids.
    """
    query_of = dict(zip(_ids(queries, "queries"), map(as_text, queries.cells("text")), strict=True))
    titles = corpus.columns.get("title") or [""] * len(corpus)
    titles_and_texts = zip(map(as_text, titles), map(as_text, corpus.cells("text")), strict=True)
    document_of = dict(zip(_ids(corpus, "corpus"), titles_and_texts, strict=True))
    rows = list(_relevant(judgments))
    documents = [document_of.get(document) for _, document, _ in rows]
    columns: dict[str, list[Any]] = {
        "anchor": [query_of.get(query) for query, _, _ in rows],
        "positive": [None if document is None else document_text(*document) for document in documents],
        "document_title": [document and document[0] for document in documents],
        "document_text": [document and document[1] for document in documents],
        "score": [score for _, _, score in rows],
        "query_id": [query for query, _, _ in rows],
        "document_id": [document for _, document, _ in rows],
    }
    return build_table(origin, columns, {})


def _relevant(judgments: Table) -> Iterator[tuple[str, str, float]]:
    scores = judgments.columns.get("score") or [1] * len(judgments)
    for query, document, score in zip(judgments.cells("query-id"), judgments.cells("corpus-id"), scores, strict=True):
        number = number_in(score)
        if number is not None and number > 0:
            yield as_text(query), as_text(document), number


def _ids(table: Table, kind: str) -> list[str]:
    ids = list(map(as_text, table.cells("_id")))
    require_unique(ids, kind, table.origin)
    return ids


def require_unique(ids: list[str], kind: str, origin: str) -> None:
    if len(set(ids)) < len(ids):
        duplicate = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{origin}: the id {duplicate!r} occurs more than once, but ids of {kind} must be unique")
