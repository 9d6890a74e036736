"""Queries, a corpus, and which documents are relevant: made from pairs, or from three tables that name ids."""

import math
from collections.abc import Collection as Ids
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from stfit.data.mapping.cells import as_text, number_in
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.filters import filter_rows
from stfit.data.mapping.selectors import select, select_or_raise
from stfit.data.reading.beir import document_text, require_unique
from stfit.data.reading.load_table import load_table
from stfit.data.source import TableSource
from stfit.data.table import Table
from stfit.errors import DataError, Problem, RecipeError, at_key

MAX_MISSING = 0.5
"""A larger share of missing queries or documents is an error: the others would say little about the whole."""
SHOWN_IDS = 5


@dataclass(frozen=True)
class Collection:
    queries: list[str]
    corpus: list[str]
    relevant: list[dict[int, float]]
    """For each query: position in the corpus of a relevant document -> grade."""
    missing: list[list[float]]
    """For each query: grades of the relevant documents that are not in the corpus; they count as missed."""
    query_row: np.ndarray
    """Rows of the queries in their file, from 1."""
    own: np.ndarray
    """Position in the corpus of the document with the same id as each query; -1 if there is none."""
    kept: list[Any] = field(default_factory=list)
    """Of each query, the value of a column that the evaluator asks for."""
    problems: list[Problem] = field(default_factory=list)
    """What the judgments name and the other tables lack, and what has no text."""

    @property
    def texts(self) -> dict[str, list[str]]:
        return {"query": self.queries, "corpus": self.corpus}

    @property
    def pairs(self) -> Examples:
        texts: dict[str, list[str | None]] = {
            "anchor": [query for query, found in zip(self.queries, self.relevant, strict=True) for _ in found],
            "positive": [self.corpus[document] for found in self.relevant for document in sorted(found)],
        }
        row = np.repeat(self.query_row, [len(found) for found in self.relevant])
        return Examples("positive_pair", texts, None, "none", None, row, {})


def collection_of_pairs(pairs: Examples, keep: str | None = None) -> Collection:
    """The positives form the corpus. Equal texts are one query, or one document. `keep`: a column of the pairs."""
    anchors, positives = pairs.column("anchor"), pairs.column("positive")
    query_row, corpus = _first_rows(anchors, pairs.row), list(dict.fromkeys(positives))
    index_of = {text: index for index, text in enumerate(corpus)}
    relevant: dict[str, dict[int, float]] = {query: {} for query in query_row}
    for anchor, positive in zip(anchors, positives, strict=True):
        relevant[anchor][index_of[positive]] = 1.0
    return Collection(
        queries=list(query_row),
        corpus=corpus,
        relevant=list(relevant.values()),
        missing=[[] for _ in query_row],
        query_row=np.array(list(query_row.values())),
        own=np.full(len(query_row), -1),
        kept=[] if keep is None else list(_first_values(anchors, pairs.kept[keep])),
    )


def _first_values(texts: list[str], values: list[Any]) -> Iterable[Any]:
    """The value of the first row of each text, in the order of first occurrence."""
    first: dict[str, Any] = {}
    for text, value in zip(texts, values, strict=True):
        first.setdefault(text, value)
    return first.values()


def _first_rows(texts: list[str], rows: np.ndarray) -> dict[str, int]:
    """Each text, in the order of first occurrence -> the row of its first occurrence."""
    first: dict[str, int] = {}
    for text, row in zip(texts, rows.tolist(), strict=True):
        first.setdefault(text, row)
    return first


class _Entry(NamedTuple):
    text: str
    row: int


class _Judgment(NamedTuple):
    query: str
    document: str
    score: float
    row: int
    """In its file, from 1."""

    @property
    def is_relevant(self) -> bool:
        return self.score > 0


def load_collection(
    corpus: TableSource, queries: TableSource, relevant: TableSource, is_split: bool, keep: str | None = None
) -> Collection:
    """Judgments above 0 make a document relevant. `is_split`: other splits may judge the other queries.

    `keep`: a column of the queries.
    """
    documents = dict(sorted(_entries_by_id(corpus, "corpus").items()))
    all_queries = _entries_by_id(queries, "queries")
    table = filter_rows(load_table(relevant), relevant.where)
    all_judgments = list(_judgments(table, relevant))
    judgments = [judgment for judgment in all_judgments if judgment.is_relevant]
    grades_of: dict[str, dict[str, float]] = {}
    for judgment in judgments:
        grades = grades_of.setdefault(judgment.query, {})
        grades[judgment.document] = max(judgment.score, grades.get(judgment.document, 0.0))
    judged = {key: grades_of[key] for key in all_queries if key in grades_of}
    index_of = {key: index for index, key in enumerate(documents)}
    found = [{index_of[key]: grade for key, grade in grades.items() if key in index_of} for grades in judged.values()]
    if not any(found):
        raise DataError(
            f"{table.origin}: no judgement above 0 names a query of {queries.dataset} and a document of "
            f"{corpus.dataset}{_example(judgments, all_queries, documents)}: check `columns` and `split`"
        )
    expected = set(_texts_of(table, relevant, "query")) if is_split else all_queries
    unjudged = [key for key in all_queries if key in expected and key not in judged]
    return Collection(
        queries=[all_queries[key].text for key in judged],
        corpus=[document.text for document in documents.values()],
        relevant=found,
        missing=[[grade for key, grade in grades.items() if key not in index_of] for grades in judged.values()],
        query_row=np.array([all_queries[key].row for key in judged]),
        own=np.array([index_of.get(key, -1) for key in judged]),
        kept=[] if keep is None else _kept_of(queries, keep, list(judged)),
        problems=[
            *_missing(judgments, all_queries, documents, table.origin),
            *_contradicting(all_judgments, table.origin),
            *_unjudged(unjudged, queries.dataset),
            *_blank({key: all_queries[key] for key in judged}, "queries", queries.dataset),
            *_blank(documents, "documents", corpus.dataset),
        ],
    )


def _example(judgments: list[_Judgment], queries: Ids[str], documents: Ids[str]) -> str:
    """The first ids of both sides, if there are any."""
    if not judgments or not queries or not documents:
        return ""
    first, query, document = judgments[0], next(iter(queries)), next(iter(documents))
    return f" (it names {first.query!r} and {first.document!r}, and the first ids there are {query!r} and {document!r})"


def _missing(judgments: list[_Judgment], queries: Ids[str], documents: Ids[str], origin: str) -> list[Problem]:
    """What is judged and not there. Raises DataError if that is more than half of the queries or documents."""
    query_ids = [(judgment.query, judgment.row) for judgment in judgments]
    document_ids = [(judgment.document, judgment.row) for judgment in judgments if judgment.query in queries]
    named = {
        "queries": (query_ids, queries, "are not measured"),
        "documents": (document_ids, documents, "count as missed"),
    }
    problems: list[Problem] = []
    too_many: list[Problem] = []
    for kind, (ids, known, effect) in named.items():
        row_of = dict(reversed(ids))  # the first row of each
        lost = sorted((key for key in row_of if key not in known), key=lambda key: row_of[key])
        if not lost:
            continue
        share = f"{len(lost)} of {len(row_of)} judged {kind} are missing ({_listed(lost)})"
        is_error = len(lost) > MAX_MISSING * len(row_of)
        message = f"{share}: is this the right file of {kind}?" if is_error else f"{share}, and {effect}"
        problem = Problem(message, f"missing-{kind}", origin, row=row_of[lost[0]])
        (too_many if is_error else problems).append(problem)
    if too_many:
        raise DataError(too_many)
    return problems


def _contradicting(judgments: list[_Judgment], origin: str) -> list[Problem]:
    relevant = {(judgment.query, judgment.document) for judgment in judgments if judgment.is_relevant}
    rows = [
        judgment.row
        for judgment in judgments
        if not judgment.is_relevant and (judgment.query, judgment.document) in relevant
    ]
    message = f"{len(rows)} scores of 0 or less contradict scores above 0 of the same query and document: ignored"
    return [Problem(message, "contradicting-judgments", origin, row=rows[0])] if rows else []


def _unjudged(queries: list[str], origin: str) -> list[Problem]:
    message = f"{len(queries)} queries have no relevant document ({_listed(queries)}), and are not measured"
    return [Problem(message, "unjudged-queries", origin)] if queries else []


def _blank(entries: dict[str, _Entry], kind: str, origin: str) -> list[Problem]:
    blank = [key for key, entry in entries.items() if not entry.text.strip()]
    message = f"{len(blank)} of {len(entries)} {kind} have no text ({_listed(blank)}), and are measured all the same"
    return [Problem(message, f"blank-{kind}", origin, row=entries[blank[0]].row)] if blank else []


def _listed(ids: list[str]) -> str:
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return f"{', '.join(ids[:SHOWN_IDS])}{more}"


def _judgments(table: Table, source: TableSource) -> Iterator[_Judgment]:
    queries, documents = (_texts_of(table, source, role) for role in ("query", "corpus"))
    scores = _optional(table, source, "score", default=1)
    for query, document, score, row in zip(queries, documents, scores, table.row.tolist(), strict=True):
        number = number_in(score)
        if number is None or math.isnan(number):
            message = f"row {row}: the score {score!r} is no number: a judgment above 0 makes a document relevant"
            raise DataError(Problem(message, "bad-score", table.origin, row=row))
        yield _Judgment(query, document, float(number), row)


def _entries_by_id(source: TableSource, kind: str) -> dict[str, _Entry]:
    table = filter_rows(load_table(source), source.where)
    ids, texts = (_texts_of(table, source, role) for role in ("id", "text"))
    titles = map(as_text, _optional(table, source, "title", default=""))
    entries = {
        key: _Entry(document_text(title, text), row)
        for key, title, text, row in zip(ids, titles, texts, table.row.tolist(), strict=True)
    }
    require_unique(ids, kind, table.origin)
    return entries


def _kept_of(queries: TableSource, column: str, chosen: list[str]) -> list[Any]:
    table = filter_rows(load_table(queries), queries.where)
    with at_key("by"):
        values = dict(zip(_texts_of(table, queries, "id"), select_or_raise(table, column), strict=True))
    return [values[key] for key in chosen]


def _cells_of(table: Table, source: TableSource, role: str) -> list[Any]:
    selector = source.columns.get(role, role)
    if not isinstance(selector, str):
        raise RecipeError(f"`columns: {role}` takes one selector")
    return list(select(table, selector))


def _optional(table: Table, source: TableSource, role: str, default: Any) -> list[Any]:
    has_role = role in source.columns or role in table.columns
    return _cells_of(table, source, role) if has_role else [default] * len(table)


def _texts_of(table: Table, source: TableSource, role: str) -> list[str]:
    return list(map(as_text, _cells_of(table, source, role)))
