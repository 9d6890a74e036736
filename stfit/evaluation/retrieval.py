"""Does a query find the relevant documents of a corpus?"""

import glob
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.data.mapping.examples import Examples
from stfit.data.mapping.filters import filter_rows, number_in
from stfit.data.mapping.selectors import select
from stfit.data.reading.load_table import load_table
from stfit.data.source import TableSource, is_remote
from stfit.data.table import Table
from stfit.errors import DataError, RecipeError, did_you_mean
from stfit.evaluation.base import Embed, EvaluatorBase, TrainAndHoldout
from stfit.evaluation.ir_metrics import KINDS, metrics_at
from stfit.evaluation.knn import CHUNK, nearest
from stfit.evaluation.statistic import Statistic

log = logging.getLogger("stfit")

QRELS: dict[str, str | list[str]] = {"query": "query-id", "corpus": "corpus-id"}
BEIR_ID: dict[str, str | list[str]] = {"id": "_id"}
"""Role -> column in the files of a BEIR dataset: judgments (QRELS), and corpus and queries (BEIR_ID)."""


@dataclass(frozen=True)
class Collection:
    queries: list[str]
    corpus: list[str]
    relevant: list[set[int]]
    """Positions in the corpus of each query's relevant documents."""
    missing: np.ndarray
    """Number of relevant documents of each query that are not in the corpus; they count as missed."""

    @property
    def texts(self) -> dict[str, list[str]]:
        return {"query": self.queries, "corpus": self.corpus}

    @property
    def pairs(self) -> Examples:
        texts: dict[str, list[str | None]] = {
            "anchor": [query for query, found in zip(self.queries, self.relevant, strict=True) for _ in found],
            "positive": [self.corpus[document] for found in self.relevant for document in sorted(found)],
        }
        row = np.repeat(np.arange(1, len(self.queries) + 1), [len(found) for found in self.relevant])
        return Examples("positive_pair", texts, None, "none", None, row, {})


class Retrieval(EvaluatorBase):
    """Searches a corpus for each query with the model's similarity function.

    `dataset` is a BEIR folder (corpus.jsonl, queries.jsonl, qrels/<split>.tsv), a Hub dataset with that layout, or any
    source of anchor/positive pairs, whose positives form the corpus. Alternatively, set `corpus`, `queries` and
    `relevant`. A document is its title followed by its text. Judgments above 0 count as relevant.
    """

    aliases = ("InformationRetrievalEvaluator",)
    type: Literal["retrieval"] = "retrieval"
    format = "positive_pair"
    from_holdout_of = ("triplet",)
    per_similarity = False
    corpus: TableSource | None = None
    """Documents, with the columns `id`, `text` and optionally `title`; replaces `dataset`."""
    queries: TableSource | None = None
    """Queries, with the columns `id` and `text`."""
    relevant: TableSource | None = None
    """Judgments, with the columns `query` and `corpus` (ids), and optionally `score`."""
    k: list[Annotated[int, Field(gt=0)]] = Field([1, 10, 100], min_length=1)
    """Rank cutoffs: every metric is computed at each of them."""

    @model_validator(mode="after")
    def _three_tables(self) -> Self:
        given = {bool(table) for table in (self.corpus, self.queries, self.relevant)}
        if len(given) == 2:
            raise ValueError("`corpus`, `queries` and `relevant` go together: set all three")
        return self

    @property
    def origins_given(self) -> dict[str, bool]:
        tables = "the three tables `corpus`, `queries` and `relevant`"
        return super().origins_given | {tables: self.corpus is not None}

    @property
    def label(self) -> str:
        return "retrieval" if self.name is None and self.corpus is not None else super().label

    @property
    def origin(self) -> str | None:
        return self.relevant.dataset if self.relevant else self.dataset

    @property
    def metrics(self) -> list[str]:
        return [f"{kind}@{k}" for k in sorted(set(self.k)) for kind in KINDS]

    @property
    def main_metric(self) -> str:  # type: ignore[override]
        return f"ndcg@{10 if 10 in self.k else max(self.k)}"

    @property
    def prompt_roles(self) -> tuple[str, ...]:
        return ("query", "corpus")

    def load(self, seed: int, training: TrainAndHoldout | None) -> Collection:
        if tables := self.tables():
            return _load_collection(*tables)
        pairs: Examples = super().load(seed, training)
        anchors, positives = pairs.column("anchor"), pairs.column("positive")
        index_of = {text: index for index, text in enumerate(dict.fromkeys(positives))}
        relevant: dict[str, set[int]] = {}
        for anchor, positive in zip(anchors, positives, strict=True):
            relevant.setdefault(anchor, set()).add(index_of[positive])
        missing = np.zeros(len(relevant), dtype=np.int64)
        return Collection(list(relevant), list(index_of), list(relevant.values()), missing)

    def tables(self) -> tuple[TableSource, TableSource, TableSource] | None:
        """The three tables, from the recipe or from the layout of `dataset`; None for pairs."""
        if self.corpus and self.queries and self.relevant:
            return self.corpus, self.queries, self.relevant
        if self.dataset is None or self.columns:
            return None
        return _hub_tables(self) if is_remote(self.dataset) else _folder_tables(Path(self.dataset), self.split)

    def measure(self, rows: Collection, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Every metric at every k, each in [0, 1]; equally similar documents are ordered by id."""
        queries, starts = embed("query", rows.queries), range(0, len(rows.corpus), CHUNK)
        chunks = (embed("corpus", rows.corpus[start : start + CHUNK]) for start in starts)
        _, index_qn = nearest(queries, chunks, max(self.k), similarity)
        pairs = zip(index_qn.tolist(), rows.relevant, strict=True)
        hit_qn = np.array([[document in relevant for document in ranked] for ranked, relevant in pairs])
        relevant_q = np.array([len(relevant) for relevant in rows.relevant]) + rows.missing
        statistics: dict[str, Statistic] = {}
        for k in sorted(set(self.k)):
            statistics |= metrics_at(k, hit_qn, relevant_q)
        return statistics

    def examples_of(self, rows: Any) -> Examples:
        return rows.pairs


def _folder_tables(folder: Path, split: str) -> tuple[TableSource, TableSource, TableSource] | None:
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


def _hub_tables(source: Retrieval) -> tuple[TableSource, TableSource, TableSource]:
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


def _load_collection(corpus: TableSource, queries: TableSource, relevant: TableSource) -> Collection:
    documents = dict(sorted(_texts_by_id(corpus, "corpus").items()))
    all_queries = _texts_by_id(queries, "queries")
    index_of = {key: index for index, key in enumerate(documents)}
    table = filter_rows(load_table(relevant), relevant.where)
    cells = _cells_of(table, relevant, "query"), _cells_of(table, relevant, "corpus")
    judged: dict[str, set[str]] = {}
    for query, document, score in zip(*cells, _optional(table, relevant, "score"), strict=True):
        if query in all_queries and (number_in(score) or 0) > 0:
            judged.setdefault(query, set()).add(document)
    relevant_of = {query: {index_of[key] for key in keys if key in index_of} for query, keys in judged.items()}
    if not any(relevant_of.values()):
        raise DataError(
            f"{table.origin}: no judgement above 0 names a query of {queries.dataset} and a document of "
            f"{corpus.dataset}: check `columns` and `split`"
        )
    chosen = [query for query in all_queries if query in judged]
    missing = np.array([len(judged[query]) - len(relevant_of[query]) for query in chosen])
    if missing.any():
        log.warning("%s: %d relevant documents are not in the corpus, and count as missed", table.origin, missing.sum())
    return Collection(
        [all_queries[query] for query in chosen],
        list(documents.values()),
        [relevant_of[query] for query in chosen],
        missing,
    )


def _texts_by_id(source: TableSource, kind: str) -> dict[str, str]:
    table = filter_rows(load_table(source), source.where)
    ids, texts = _cells_of(table, source, "id"), _cells_of(table, source, "text")
    titles = _optional(table, source, "title", default="")
    texts_by_id = {key: f"{title} {text}".strip() for key, title, text in zip(ids, titles, texts, strict=True)}
    if len(texts_by_id) < len(ids):
        duplicate = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{table.origin}: the id {duplicate!r} occurs more than once, but ids of {kind} must be unique")
    return texts_by_id


def _cells_of(table: Table, source: TableSource, role: str) -> list[str]:
    selector = source.columns.get(role, role)
    if not isinstance(selector, str):
        raise RecipeError(f"`columns: {role}` takes one selector")
    return ["" if cell is None else str(cell) for cell in select(table, selector)]


def _optional(table: Table, source: TableSource, role: str, default: Any = 1) -> list[Any]:
    has_role = role in source.columns or role in table.columns
    return _cells_of(table, source, role) if has_role else [default] * len(table)
