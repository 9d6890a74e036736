"""NanoBEIR: small samples of the thirteen public sets of BEIR, in many languages.

Thakur et al., 2021, https://arxiv.org/abs/2104.08663; the samples: https://huggingface.co/collections/zeta-alpha-ai.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.data.checks.leakage import Column
from stfit.data.mapping.examples import Examples
from stfit.data.reading.beir import BEIR_ID, QRELS
from stfit.data.source import TableSource
from stfit.errors import Problem
from stfit.evaluation.base import Benchmark, Embed, Precision, TrainAndHoldout
from stfit.evaluation.collection import Collection, load_collection
from stfit.evaluation.evaluators.retrieval import MetricAtK, Retrieval
from stfit.evaluation.statistic import Statistic, mean_over_parts
from stfit.paths import Location
from stfit.spec import Spec

HUB_NAME = "sentence-transformers/NanoBEIR-{}"
"""By language."""
SetName = Literal[
    "ClimateFEVER", "DBPedia", "FEVER", "FiQA2018", "HotpotQA", "MSMARCO", "NFCorpus", "NQ", "QuoraRetrieval",
    "SCIDOCS", "ArguAna", "SciFact", "Touche2020",
]  # fmt: skip
SETS: list[SetName] = list(SetName.__args__)  # type: ignore[attr-defined]


class NanoBeirDataset(Spec):
    """A Hub dataset in the layout of NanoBEIR: configurations corpus, queries and qrels, a split for each set."""

    dataset: Location
    """Hub id."""
    revision: str | None = None
    """Branch, tag or commit."""


@dataclass(frozen=True)
class Sets:
    """Name of a set -> its collection."""

    collections: dict[str, Collection]

    @property
    def texts(self) -> dict[str, list[str]]:
        return {role: [text for part in self.parts for text in part.texts[role]] for role in ("query", "corpus")}

    @property
    def parts(self) -> list[Collection]:
        return list(self.collections.values())

    @property
    def set_of_query(self) -> list[str]:
        return [name for name, part in self.collections.items() for _ in part.queries]


class NanoBeir(Benchmark):
    """Search in the sets of NanoBEIR: every metric is the mean over the sets, and each set is a slice.

    50 queries and a few thousand documents each; documents are texts without titles, as in sentence-transformers.
    """

    aliases = ("NanoBEIREvaluator",)
    type: Literal["nanobeir"] = "nanobeir"
    by: ClassVar[str] = "set"
    can_rescore: ClassVar[bool] = True
    prompt_roles: ClassVar[tuple[str, ...]] = ("query", "corpus")

    languages: list[str] | None = Field(None, min_length=1)
    """Languages as in the names of the Hub datasets `sentence-transformers/NanoBEIR-en`, ... Default: en."""
    datasets: list[NanoBeirDataset] | None = Field(None, min_length=1)
    """Hub datasets in the layout of NanoBEIR, instead of those of `languages`."""
    sets: list[SetName] = Field(SETS, min_length=1)
    """Sets to measure."""
    k: list[Annotated[int, Field(gt=0)]] = Field([1, 10, 100], min_length=1)
    """Rank cutoffs: every metric is computed at each of them."""
    shown: list[MetricAtK] | None = Field(None, alias="metrics", min_length=1)  # as of `retrieval`
    """Metrics to print and to show first. Default: `ndcg@10`."""
    precisions: list[Precision] = Field(["float32"], min_length=1)
    """In which the embeddings are stored, as of `retrieval`."""
    prompts: dict[str, str] | None = None
    """Role (`query` or `corpus`) -> name of a prompt in `model.prompts`. Default: those for queries and documents."""

    @model_validator(mode="before")
    @classmethod
    def _name_datasets(cls, written: Any) -> Any:
        """So that a commit of each dataset can be recorded."""
        if not isinstance(written, dict):
            return written
        languages, datasets = written.get("languages"), written.get("datasets")
        if datasets is None and (languages is None or isinstance(languages, list)):
            languages = ["en"] if languages is None else languages
            datasets = [{"dataset": HUB_NAME.format(language)} for language in languages]
        return written | {"languages": languages, "datasets": datasets}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        named = [HUB_NAME.format(language) for language in self.languages or []]
        if named and named != [each.dataset for each in self.datasets or []]:
            raise ValueError("`languages` and `datasets` name different datasets: remove one of them")
        names = [each.dataset for each in self.datasets or []]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} is named twice: its sets would count twice")
        return self

    @property
    def label(self) -> str:
        return self.name or "nanobeir"

    @property
    def origin(self) -> str:
        return ", ".join(each.dataset for each in self.datasets or [])

    @property
    def search(self) -> Retrieval:
        """What measures each set."""
        return Retrieval.model_validate({"dataset": "set", "k": self.k, "metrics": self.shown})

    @property
    def metrics(self) -> list[str]:
        return self.search.metrics

    @property
    def main_metrics(self) -> list[str]:
        return self.shown or self.search.main_metrics[:1]

    @property
    def main_metric(self) -> str:  # type: ignore[override]
        return self.main_metrics[0]

    @property
    def stored_precisions(self) -> list[Precision]:
        return [precision for precision in dict.fromkeys(self.precisions) if precision != "float32"]

    def load(self, seed: int, training: TrainAndHoldout | None) -> Sets:
        datasets = self.datasets or []
        short = [each.dataset.rpartition("NanoBEIR-")[2] for each in datasets]
        if len(set(short)) < len(short):
            short = [each.dataset.replace("/", " ") for each in datasets]  # `/` ends the name in a metric
        prefixes = [f"{name} " for name in short] if len(short) > 1 else [""]
        return Sets(
            {
                f"{prefix}{name}": _load(each, name)
                for each, prefix in zip(datasets, prefixes, strict=True)
                for name in dict.fromkeys(self.sets)
            }
        )

    def measure(self, rows: Sets, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Every metric at every k as the mean over the sets."""
        return _mean_over_sets(rows, lambda part: self.search.measure(part, embed, similarity))

    def measure_rescored(
        self, rows: Sets, search: Embed, query: Embed, document: Embed, similarity: str
    ) -> dict[str, Statistic]:
        rescore = self.search.measure_rescored
        return _mean_over_sets(rows, lambda part: rescore(part, search, query, document, similarity))

    def slices_of(self, rows: Any) -> list[str]:
        return rows.set_of_query

    def texts_of_rows(self, rows: Any) -> dict[str, list[Any]]:
        return {"set": rows.set_of_query, "query": rows.texts["query"]}

    def details(self, rows: Sets, embed: Embed, similarity: str) -> list[dict[str, Any]]:
        return [row for part in rows.parts for row in self.search.details(part, embed, similarity)]

    def examples_of(self, rows: Any) -> Examples:
        pairs = [part.pairs for part in rows.parts]
        texts = {role: [text for part in pairs for text in part.texts[role]] for role in ("anchor", "positive")}
        return Examples("positive_pair", texts, None, "none", None, np.concatenate([part.row for part in pairs]), {})

    def columns_of(self, rows: Any) -> dict[str, Column]:
        """The queries, as of `retrieval`."""
        return {"query": Column(rows.texts["query"], np.concatenate([part.query_row for part in rows.parts]))}

    def problems_of(self, rows: Any) -> list[Problem]:
        return [problem for part in rows.parts for problem in part.problems]


def _load(source: NanoBeirDataset, name: str) -> Collection:
    corpus, queries, relevant = (
        TableSource(
            dataset=source.dataset, config=config, split=f"Nano{name}", revision=source.revision, columns=columns
        )
        for config, columns in (("corpus", BEIR_ID), ("queries", BEIR_ID), ("qrels", QRELS))
    )
    return load_collection(corpus, queries, relevant, is_split=False)


def _mean_over_sets(rows: Sets, measure: Callable[[Collection], dict[str, Statistic]]) -> dict[str, Statistic]:
    found = [measure(part) for part in rows.parts]
    return {name: mean_over_parts([statistics[name] for statistics in found]) for name in found[0]}
