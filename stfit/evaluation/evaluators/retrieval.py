"""Does a query find the relevant documents of a corpus?"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.data.checks.leakage import Column
from stfit.data.embeddings.parts import holds_parts
from stfit.data.mapping.examples import Examples
from stfit.data.object_store import path_of
from stfit.data.reading.beir import folder_tables, hub_tables
from stfit.data.source import TableSource, is_remote
from stfit.errors import Problem, RecipeError
from stfit.evaluation.base import Embed, EvaluatorBase, TrainAndHoldout
from stfit.evaluation.collection import Collection, collection_of_pairs, load_collection
from stfit.evaluation.ir_metrics import KINDS, graded_ndcg_at, metrics_at
from stfit.evaluation.slices import slice_names
from stfit.evaluation.statistic import Statistic
from stfit.neighbors.exact import CHUNK, nearest
from stfit.similarity import pairwise_similarity
from stfit.spec import TextLike

OVERSAMPLING = 4
"""Documents that signs find for each that is kept."""
RESCORED = 256
"""Queries whose documents are in memory at once."""
ALL_KINDS = (*KINDS, "ndcg_graded")
MOST_USED = ("ndcg@10", "mrr@10", "map@100", "recall@100", "accuracy@1")

MetricAtK = Annotated[
    str,
    TextLike(
        f"^({'|'.join(ALL_KINDS)})@[1-9][0-9]*$",
        f"a metric and its cutoff, such as ndcg@10; the metrics are {', '.join(ALL_KINDS)}",
    ),
]


class Retrieval(EvaluatorBase):
    """Searches a corpus for each query with the model's similarity function.

    `dataset` is a BEIR folder (corpus.jsonl, queries.jsonl, qrels/<split>.tsv), a Hub dataset with that layout, or any
    source of anchor/positive pairs, whose positives form the corpus. Alternatively, set `corpus`, `queries` and
    `relevant`. A document is its title followed by its text. Judgments above 0 count as relevant; `ndcg_graded` weighs
    documents by their scores, and equals `ndcg` where all are 1.
    """

    aliases = ("InformationRetrievalEvaluator",)
    type: Literal["retrieval"] = "retrieval"
    format = "positive_pair"
    from_holdout_of = ("triplet",)
    per_similarity = False
    can_rescore = True
    corpus: TableSource | None = None
    """Documents, with the columns `id`, `text` and optionally `title`, or what `stfit encode --part --with-text` wrote,
    whose embeddings are used if the measured model made them; replaces `dataset`."""
    queries: TableSource | None = None
    """Queries, with the columns `id` and `text`."""
    relevant: TableSource | None = None
    """Judgments, with the columns `query` and `corpus` (ids), and optionally `score`."""
    k: list[Annotated[int, Field(gt=0)]] = Field([1, 10, 100], min_length=1)
    """Rank cutoffs: every metric is computed at each of them."""
    shown: list[MetricAtK] | None = Field(None, alias="metrics", min_length=1)  # `metrics` are all that are computed
    """Metrics to print and to show first, such as `[ndcg@10, recall@50]`; a cutoff that is not in `k` is added to it.
    All others are recorded too. Default: `ndcg@10`, `mrr@10`, `map@100`, `recall@100` and `accuracy@1`, as far as `k`
    has their cutoffs."""
    ignore_identical_ids: bool = False
    """Leave the document with the id of a query out of this query's ranking, as BEIR does (ArguAna has such queries).
    sentence-transformers ranks it."""

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
    def folders_of_parts(self) -> list[str]:
        is_ours = self.corpus is not None and not is_remote(self.corpus.dataset)
        return [self.corpus.dataset] if self.corpus and is_ours and holds_parts(path_of(self.corpus.dataset)) else []

    @property
    def label(self) -> str:
        return "retrieval" if self.name is None and self.corpus is not None else super().label

    @property
    def origin(self) -> str | None:
        return self.relevant.dataset if self.relevant else self.dataset

    @property
    def cutoffs(self) -> list[int]:
        return sorted({*self.k, *(int(name.partition("@")[2]) for name in self.shown or [])})

    @property
    def metrics(self) -> list[str]:
        return [f"{kind}@{k}" for k in self.cutoffs for kind in ALL_KINDS]

    @property
    def main_metrics(self) -> list[str]:
        first = f"ndcg@{10 if 10 in self.k else max(self.k)}"
        return list(dict.fromkeys(self.shown or [first, *(name for name in MOST_USED if name in self.metrics)]))

    @property
    def main_metric(self) -> str:  # type: ignore[override]
        return self.main_metrics[0]

    @property
    def prompt_roles(self) -> tuple[str, ...]:
        return ("query", "corpus")

    def load(self, seed: int, training: TrainAndHoldout | None) -> Collection:
        if tables := self.tables():
            is_split = self.corpus is None and _has_splits(str(self.dataset))
            return load_collection(*tables, is_split=is_split, keep=self.by)
        if self.ignore_identical_ids:
            message = "`ignore_identical_ids` is for queries and documents with ids; pairs have none: remove it"
            raise RecipeError(Problem(message, RecipeError.code, key="ignore_identical_ids"))
        return collection_of_pairs(super().load(seed, training), self.by)

    def tables(self) -> tuple[TableSource, TableSource, TableSource] | None:
        """The three tables, from the recipe or from the layout of `dataset`; None for pairs."""
        if self.corpus and self.queries and self.relevant:
            return self.corpus, self.queries, self.relevant
        if self.dataset is None or self.columns:
            return None
        return hub_tables(self) if is_remote(self.dataset) else folder_tables(Path(self.dataset), self.split)

    def measure(self, rows: Collection, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Every metric at every k, each in [0, 1]; equally similar documents are ordered by id."""
        return self._statistics(rows, self._search(rows, embed, similarity)[0])

    def measure_rescored(
        self, rows: Collection, search: Embed, query: Embed, document: Embed, similarity: str
    ) -> dict[str, Statistic]:
        """The same of a search in two steps: `search` embeds what finds documents, the others what orders them."""
        index_qn, _ = self._search(rows, search, similarity, OVERSAMPLING)
        queries = query("query", rows.queries)
        reordered = np.empty_like(index_qn)
        for start in range(0, len(index_qn), RESCORED):
            block = slice(start, start + RESCORED)
            found, place_qn = np.unique(index_qn[block], return_inverse=True)
            vectors = document("corpus", [rows.corpus[i] for i in found.tolist()])[
                place_qn.reshape(index_qn[block].shape)
            ]
            score_qn = _similarity_of_each(similarity, queries[block], vectors)
            order = np.argsort(-score_qn, axis=1, kind="stable")
            reordered[block] = np.take_along_axis(index_qn[block], order, axis=1)
        return self._statistics(rows, reordered)

    def _statistics(self, rows: Collection, index_qn: np.ndarray) -> dict[str, Statistic]:
        pairs = zip(index_qn.tolist(), rows.relevant, strict=True)
        grade_qn = np.array([[relevant.get(document, 0.0) for document in ranked] for ranked, relevant in pairs])
        known_and_missing = zip(rows.relevant, rows.missing, strict=True)
        grades = [sorted([*known.values(), *missing], reverse=True) for known, missing in known_and_missing]
        statistics: dict[str, Statistic] = {}
        for k in self.cutoffs:
            statistics |= metrics_at(k, grade_qn > 0, np.array(list(map(len, grades))))
            statistics[f"ndcg_graded@{k}"] = graded_ndcg_at(k, grade_qn, grades)
        return statistics

    def _search(self, rows: Collection, embed: Embed, similarity: str, times: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the documents that each query finds, the nearest first, and their similarities.

        Those of `times` the last cutoff.
        """
        queries, starts = embed("query", rows.queries), range(0, len(rows.corpus), CHUNK)
        chunks = (embed("corpus", rows.corpus[start : start + CHUNK]) for start in starts)
        count = times * max(self.cutoffs) + self.ignore_identical_ids
        score_qn, index_qn = nearest(queries, chunks, count, similarity)
        if not self.ignore_identical_ids:
            return index_qn, score_qn
        is_kept_qn = _is_not_own(index_qn, rows.own)
        return index_qn[is_kept_qn].reshape(len(index_qn), -1), score_qn[is_kept_qn].reshape(len(index_qn), -1)

    def texts_of_rows(self, rows: Any) -> dict[str, list[Any]]:
        return {"row": rows.query_row.tolist(), "query": rows.queries}

    def details(self, rows: Collection, embed: Embed, similarity: str) -> list[dict[str, Any]]:
        """Of each query: rank and similarity of its relevant documents, null beyond the last cutoff."""
        index_qn, score_qn = self._search(rows, embed, similarity)
        return [
            {"relevant": _ranks_of(relevant, index_n, score_n, rows.corpus)}
            for relevant, index_n, score_n in zip(rows.relevant, index_qn.tolist(), score_qn.tolist(), strict=True)
        ]

    def slices_of(self, rows: Any) -> list[str] | None:
        return None if self.by is None else slice_names(rows.kept)

    def examples_of(self, rows: Any) -> Examples:
        return rows.pairs

    def columns_of(self, rows: Any) -> dict[str, Column]:
        """The queries: new queries search documents that training knows, too."""
        return {"query": Column(rows.queries, rows.query_row)}

    def problems_of(self, rows: Any) -> list[Problem]:
        return list(rows.problems)


def _similarity_of_each(similarity: str, query_qd: np.ndarray, document_qnd: np.ndarray) -> np.ndarray:
    """Of each query to each of its documents, [q, n]."""
    import torch

    queries = torch.from_numpy(np.repeat(query_qd, document_qnd.shape[1], axis=0))
    documents = torch.from_numpy(document_qnd.reshape(-1, document_qnd.shape[2]))
    return pairwise_similarity(similarity, queries, documents).numpy().reshape(document_qnd.shape[:2])


def _is_not_own(index_qn: np.ndarray, own_q: np.ndarray) -> np.ndarray:
    """The ranking of each query without its own document; of other queries, without the last."""
    is_own_qn = index_qn == own_q[:, None]
    is_own_qn[~is_own_qn.any(axis=1), -1] = True
    return ~is_own_qn


def _ranks_of(
    relevant: dict[int, float], found: list[int], scores: list[float], corpus: list[str]
) -> list[dict[str, Any]]:
    rank_of = {document: rank for rank, document in enumerate(found, start=1)}
    ranked = sorted(relevant, key=lambda document: rank_of.get(document, len(found) + 1))
    return [
        {
            "document": corpus[document],
            "grade": relevant[document],
            "rank": (rank := rank_of.get(document)),
            "similarity": None if rank is None else scores[rank - 1],
        }
        for document in ranked
    ]


def _has_splits(dataset: str) -> bool:
    """Whether the queries of a dataset may be those of several splits."""
    return is_remote(dataset) or len(list(Path(dataset).glob("qrels/*.tsv*"))) > 1
