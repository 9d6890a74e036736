"""Does a query find the right documents of a corpus?"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.data.mapping.examples import Examples, load_examples
from stfit.data.mapping.filters import filter_rows, number_in
from stfit.data.mapping.selectors import select
from stfit.data.reading.load_table import load_table
from stfit.data.source import TableSource, is_remote
from stfit.data.table import Table
from stfit.errors import DataError, RecipeError, did_you_mean
from stfit.evaluation.base import Embed, EvaluatorBase, TrainAndHoldout
from stfit.evaluation.ir_metrics import metrics_at, names_at
from stfit.evaluation.knn import in_chunks, nearest
from stfit.evaluation.statistic import Statistic

log = logging.getLogger("stfit")

QRELS: dict[str, str | list[str]] = {"query": "query-id", "corpus": "corpus-id"}
BEIR_ID: dict[str, str | list[str]] = {"id": "_id"}
"""Role -> column of the files of a BEIR set: relevance judgements, and the other two."""


@dataclass(frozen=True)
class Collection:
    """Queries, the corpus in which they search, and what is right for each."""

    queries: list[str]
    corpus: list[str]
    relevant: list[set[int]]
    """Positions in the corpus of each query's relevant documents."""
    missing: np.ndarray
    """How many relevant documents of each query the corpus does not have: they can't be found, and count as missed."""

    @property
    def texts(self) -> dict[str, list[str]]:
        """Texts by role."""
        return {"query": self.queries, "corpus": self.corpus}

    @property
    def pairs(self) -> Examples:
        """Every query with each of its relevant documents."""
        found = [
            (query, document, row)
            for row, (query, documents) in enumerate(zip(self.queries, self.relevant, strict=True), start=1)
            for document in sorted(documents)
        ]
        texts: dict[str, list[str | None]] = {
            "anchor": [query for query, _, _ in found],
            "positive": [self.corpus[document] for _, document, _ in found],
        }
        return Examples("positive_pair", texts, None, "none", None, np.array([row for *_, row in found]), {})


class Retrieval(EvaluatorBase):
    """Search: for each query, the nearest documents of a corpus, by the model's own similarity.

    `dataset` is a BEIR folder (corpus.jsonl, queries.jsonl, qrels/<split>.tsv), a Hub set of that layout, or any source
    of anchor/positive pairs, whose corpus are all its positives. Or give the three tables. A document is its title and
    its text. Judgements above 0 count as relevant.
    """

    aliases = ("InformationRetrievalEvaluator",)
    type: Literal["retrieval"] = "retrieval"
    format = "positive_pair"
    from_holdout_of = ("triplet",)
    per_similarity = False
    corpus: TableSource | None = None
    """Documents, with the columns `id`, `text` and, where there is one, `title`; instead of `dataset`."""
    queries: TableSource | None = None
    """Queries, with the columns `id` and `text`."""
    relevant: TableSource | None = None
    """Which documents are right for which query: columns `query`, `corpus` (ids), and `score` where there is one."""
    k: list[Annotated[int, Field(gt=0)]] = Field([1, 10, 100], min_length=1)
    """Ranks up to which results count: every metric is measured at each of these."""

    @model_validator(mode="after")
    def three_tables(self) -> Self:
        """Two of the three say nothing."""
        given = {bool(table) for table in (self.corpus, self.queries, self.relevant)}
        if len(given) == 2:
            raise ValueError("`corpus`, `queries` and `relevant` go together: give all three")
        return self

    @property
    def origins_given(self) -> dict[str, bool]:
        """Where rows may come from, in words, and whether the recipe says so."""
        tables = "the three tables `corpus`, `queries` and `relevant`"
        return super().origins_given | {tables: self.corpus is not None}

    @property
    def label(self) -> str:
        """First part of the metrics' names."""
        return "retrieval" if self.name is None and self.corpus is not None else super().label

    @property
    def origin(self) -> str | None:
        """Where the rows come from."""
        return self.relevant.dataset if self.relevant else self.dataset

    @property
    def metrics(self) -> list[str]:
        """Every metric at every k."""
        return [name for k in sorted(set(self.k)) for name in names_at(k)]

    @property
    def main_metric(self) -> str:  # type: ignore[override]
        """NDCG at 10, or at the largest k where 10 is not asked for."""
        return f"ndcg@{10 if 10 in self.k else max(self.k)}"

    @property
    def prompt_roles(self) -> tuple[str, ...]:
        """The roles that `prompts` may give a prompt."""
        return ("query", "corpus")

    def load(self, seed: int, own: TrainAndHoldout | None) -> Collection:
        """Queries, corpus and judgements."""
        if tables := self.tables():
            return _load_collection(*tables)
        pairs = self.held_out(own) if self.from_ else load_examples(self, self.format, seed)[0]
        return _collection_of(pairs)

    def tables(self) -> tuple[TableSource, TableSource, TableSource] | None:
        """The three tables, as the recipe gives them or as the layout of `dataset` has them; None for pairs."""
        if self.corpus and self.queries and self.relevant:
            return self.corpus, self.queries, self.relevant
        if self.dataset is None or self.columns:
            return None
        return _hub_tables(self) if is_remote(self.dataset) else _folder_tables(Path(self.dataset), self.split)

    def measure(self, rows: Collection, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Every metric at every k, each in [0, 1]; of equally near documents, the one of the lower id comes first."""
        queries = embed("query", rows.queries)
        _, index_qn = nearest(queries, in_chunks(embed, "corpus", rows.corpus), max(self.k), similarity)
        pairs = zip(index_qn.tolist(), rows.relevant, strict=True)
        hit_qn = np.array([[document in relevant for document in found] for found, relevant in pairs])
        relevant_q = np.array([len(relevant) for relevant in rows.relevant]) + rows.missing
        found: dict[str, Statistic] = {}
        for k in sorted(set(self.k)):
            found |= metrics_at(k, hit_qn, relevant_q)
        return found

    def examples_of(self, rows: Any) -> Examples:
        """What of the rows training must not have seen."""
        pairs: Examples = rows.pairs
        return pairs


def _folder_tables(folder: Path, split: str) -> tuple[TableSource, TableSource, TableSource] | None:
    """The files of a BEIR folder; None for a folder of another layout."""
    corpus, queries = (_first_of(folder, f"{name}.jsonl*") for name in ("corpus", "queries"))
    if corpus is None or queries is None:
        return None
    known = sorted(path.name.partition(".")[0] for path in (folder / "qrels").glob("*.tsv*"))
    qrels = _first_of(folder / "qrels", f"{split}.tsv*")
    if qrels is None:
        hint = did_you_mean(split, known) or "there is none"
        raise DataError(f"{folder} has no judgements for the split `{split}` in qrels/: {hint}")
    return (
        TableSource(dataset=str(corpus), columns=BEIR_ID),
        TableSource(dataset=str(queries), columns=BEIR_ID),
        TableSource(dataset=str(qrels), columns=QRELS),
    )


def _first_of(folder: Path, pattern: str) -> Path | None:
    """A file, plain or packed."""
    return next(iter(sorted(folder.glob(pattern))), None)


def _hub_tables(source: Retrieval) -> tuple[TableSource, TableSource, TableSource]:
    """The configurations of a Hub set in MTEB's layout; BeIR keeps the judgements in a repository beside it."""
    dataset, revision = str(source.dataset), source.revision
    beside = dataset.startswith("BeIR/")
    parts = {name: TableSource(dataset=dataset, config=name, split=name, revision=revision, columns=BEIR_ID)
             for name in ("corpus", "queries")}  # fmt: skip
    qrels = TableSource(
        dataset=f"{dataset}-qrels" if beside else dataset,
        config=None if beside else "default",
        split=source.split,
        revision=None if beside else revision,
        columns=QRELS,
    )
    return parts["corpus"], parts["queries"], qrels


def _load_collection(corpus: TableSource, queries: TableSource, relevant: TableSource) -> Collection:
    """Read the three tables. Raises DataError where ids are missing, stand there twice, or don't meet."""
    documents = dict(sorted(_texts_by_id(corpus, "corpus").items()))
    asked = _texts_by_id(queries, "queries")
    at = {key: position for position, key in enumerate(documents)}
    table = filter_rows(load_table(relevant), relevant.where)
    cells = {role: _cells_of(table, relevant, role) for role in ("query", "corpus")}
    scores = _optional(table, relevant, "score")
    right: dict[str, set[str]] = {}
    for query, document, score in zip(cells["query"], cells["corpus"], scores, strict=True):
        if query in asked and (number_in(score) or 0) > 0:
            right.setdefault(query, set()).add(document)
    known = {query: {at[key] for key in found if key in at} for query, found in right.items()}
    if not any(known.values()):
        raise DataError(
            f"{table.origin}: no judgement above 0 names a query of {queries.dataset} and a document of "
            f"{corpus.dataset}: look at `columns` and `split`"
        )
    chosen = [query for query in asked if query in right]
    missing = np.array([len(right[query]) - len(known[query]) for query in chosen])
    if missing.any():
        log.warning("%s: %d relevant documents are not in the corpus, and count as missed", table.origin, missing.sum())
    return Collection(
        [asked[query] for query in chosen], list(documents.values()), [known[query] for query in chosen], missing
    )


def _texts_by_id(source: TableSource, what: str) -> dict[str, str]:
    """Id -> text, with its title before it where there is one."""
    table = filter_rows(load_table(source), source.where)
    ids = _cells_of(table, source, "id")
    texts = _cells_of(table, source, "text")
    titles = _optional(table, source, "title", nothing="")
    found = {key: f"{title or ''} {text}".strip() for key, title, text in zip(ids, titles, texts, strict=True)}
    if len(found) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{table.origin}: the id {twice!r} stands there twice, and the {what} are found by their ids")
    return found


def _cells_of(table: Table, source: TableSource, role: str) -> list[str]:
    """A role's cells as text."""
    selector = source.columns.get(role, role)
    if not isinstance(selector, str):
        raise RecipeError(f"`columns: {role}` takes one selector")
    return ["" if cell is None else str(cell) for cell in select(table, selector)]


def _optional(table: Table, source: TableSource, role: str, nothing: Any = 1) -> list[Any]:
    """A role's cells, or `nothing` in every row where the table has no such column."""
    selector = source.columns.get(role, role)
    return (
        _cells_of(table, source, role)
        if role in source.columns or selector in table.columns
        else [nothing] * len(table)
    )


def _collection_of(pairs: Examples) -> Collection:
    """Distinct anchors as queries, distinct positives as the corpus."""
    anchors, positives = pairs.column("anchor"), pairs.column("positive")
    at = {text: position for position, text in enumerate(dict.fromkeys(positives))}
    relevant: dict[str, set[int]] = {}
    for anchor, positive in zip(anchors, positives, strict=True):
        relevant.setdefault(anchor, set()).add(at[positive])
    return Collection(list(relevant), list(at), list(relevant.values()), np.zeros(len(relevant), dtype=np.int64))
