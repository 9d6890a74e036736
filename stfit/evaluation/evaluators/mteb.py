"""Tasks of the Massive Text Embedding Benchmark (Muennighoff et al., https://arxiv.org/abs/2210.07316).

Needs the extra `mteb`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.errors import HubError, RecipeError
from stfit.evaluation.base import Benchmark, Embed, TrainAndHoldout
from stfit.evaluation.statistic import Statistic, mean_of, mean_over_parts
from stfit.lazy import torch
from stfit.similarity import pairwise_similarity, similarity_matrix

ROLE_OF_PROMPT = {"query": "query", "document": "corpus"}
OF_TREC = {"ndcg": "ndcg_cut_", "map": "map_cut_", "recall": "recall_", "precision": "P_", "hit_rate": "success_"}
"""Metric of mteb -> start of its name among the scores of single queries, which are those of trec_eval."""
MAIN = "main_score"
ROUNDING = 1e-4
"""Of the scores that mteb gives."""


class Mteb(Benchmark):
    """Tasks of the mteb package, with their own data and main scores: each the mean over its subsets and splits.

    Of tasks that search or rank, the score of each query is kept, so that intervals and gates apply.
    """

    type: Literal["mteb"] = "mteb"
    main_metric: ClassVar[str] = MAIN
    prompt_roles: ClassVar[tuple[str, ...]] = ("text", "query", "corpus")

    task: str | None = None
    """Name of the task, such as `STSBenchmark` or `SciFact`."""
    tasks: list[str] | None = Field(None, min_length=1)
    """Names of several tasks: each is a metric of its own, and `main_score` is their mean."""
    prompts: dict[str, str] | None = None
    """Role (`text`, `query` or `corpus`) -> name of a prompt in `model.prompts`. Default: those for queries and
    documents if the task distinguishes the two."""

    @model_validator(mode="after")
    def _task_or_tasks(self) -> Self:
        if (self.task is None) == (self.tasks is None):
            raise ValueError("set either `task` or `tasks`")
        return self

    @property
    def task_names(self) -> list[str]:
        return list(dict.fromkeys(self.tasks or [str(self.task)]))

    @property
    def metrics(self) -> list[str]:
        return [MAIN, *(self.task_names if self.tasks else [])]

    @property
    def label(self) -> str:
        return self.name or self.task or "mteb"

    @property
    def origin(self) -> str:
        return f"mteb:{', '.join(self.task_names)}"

    def load(self, seed: int, training: TrainAndHoldout | None) -> Tasks:
        try:
            import mteb
        except ImportError as error:
            raise RecipeError(f"evaluator `{self.label}` needs the package mteb: install the extra `mteb`") from error
        try:
            return Tasks({name: mteb.get_task(name) for name in self.task_names})
        except KeyError as error:
            raise RecipeError(f"evaluator `{self.label}`: mteb has no such task: {error.args[0]}") from error

    def measure(self, rows: Tasks, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """`main_score`, and that of each of several tasks. Raises HubError if a task's data cannot be downloaded."""
        scores = {name: _measure(task, Adapter(embed, similarity)) for name, task in rows.tasks.items()}
        if self.tasks is None:
            return {MAIN: scores[str(self.task)]}
        return {MAIN: mean_over_parts(list(scores.values())), **scores}


def _measure(task: Any, model: Adapter) -> Statistic:
    """The main score; without rows to resample if mteb does not give the score of each query."""
    import mteb

    per_query: list[dict[str, dict[str, float]]] = []
    give = getattr(task, "task_specific_scores", None)
    if give is not None:  # called for each subset and split with the scores of its queries

        def keep(scores: dict[str, dict[str, float]], *others: Any, **named: Any) -> Any:
            per_query.append(scores)
            return give(scores, *others, **named)

        task.task_specific_scores = keep
    try:
        result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    except OSError as error:
        raise HubError(f"the data of the mteb task {task.metadata.name} cannot be downloaded: {error}") from error
    finally:
        if give is not None:
            del task.task_specific_scores
    score = float(result.task_results[0].get_score())
    parts = _scores_of_queries(task.metadata.main_score, per_query)
    whole = mean_over_parts(parts) if len(parts) > 1 else parts[0] if parts else None
    if whole is None or abs(whole.value - score) > ROUNDING:
        return Statistic(0, lambda weight_r: score)
    return whole


def _scores_of_queries(main: str, per_query: list[dict[str, dict[str, float]]]) -> list[Statistic]:
    """Of each subset and split, the main score as a mean over its queries; none if that is not among the scores."""
    kind, _, cutoff = main.partition("_at_")
    name = f"{OF_TREC.get(kind)}{cutoff}"
    if not all(name in scores for of_queries in per_query for scores in of_queries.values()):
        return []
    return [
        mean_of(np.array([scores[name] for _, scores in sorted(of_queries.items())]))
        for of_queries in per_query
        if of_queries
    ]


class Tasks(NamedTuple):
    """Tasks in place of loaded rows; they have no texts to share with other evaluators."""

    tasks: dict[str, Any]
    texts: dict[str, list[str]] = {}


@dataclass(eq=False)
class Adapter:
    """The model with the interface that mteb expects."""

    embed: Embed
    name: str

    @property
    def mteb_model_meta(self) -> Any:
        from mteb.models import ModelMeta

        return ModelMeta.create_empty({"name": "stfit/model", "revision": "none"})

    def encode(self, inputs: Iterable[dict[str, list[str]]], *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Embeddings of batches of texts; the other arguments name the task, split and subset."""
        texts = [text for batch in inputs for text in batch["text"]]
        return self.embed(ROLE_OF_PROMPT.get(str(getattr(prompt_type, "value", prompt_type)), "text"), texts)

    def similarity(self, query_qd: Any, corpus_cd: Any) -> torch.Tensor:
        return similarity_matrix(self.name, torch.as_tensor(query_qd), torch.as_tensor(corpus_cd))

    def similarity_pairwise(self, first_rd: Any, second_rd: Any) -> torch.Tensor:
        return pairwise_similarity(self.name, torch.as_tensor(first_rd), torch.as_tensor(second_rd))
