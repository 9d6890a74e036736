"""A task of the Massive Text Embedding Benchmark (Muennighoff et al., https://arxiv.org/abs/2210.07316).

Needs the extra `mteb`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from stfit.data.checks.leakage import Column
from stfit.errors import HubError, Problem, RecipeError
from stfit.evaluation.base import Embed, Named, TrainAndHoldout
from stfit.evaluation.statistic import Statistic
from stfit.lazy import torch
from stfit.similarity import pairwise_similarity, similarity_matrix

ROLE_OF_PROMPT = {"query": "query", "document": "corpus"}


class Mteb(Named):
    """A task of the mteb package, with its own data and main score: the mean over its subsets and splits."""

    type: Literal["mteb"] = "mteb"
    format: ClassVar[str] = ""
    symmetric: ClassVar[bool] = False
    per_similarity: ClassVar[bool] = False
    main_metric: ClassVar[str] = "main_score"
    metrics: ClassVar[list[str]] = ["main_score"]
    prompt_roles: ClassVar[tuple[str, ...]] = ("text", "query", "corpus")
    # Fields of evaluators with rows of their own.
    dataset: ClassVar[None] = None
    from_: ClassVar[None] = None
    config: ClassVar[None] = None
    by: ClassVar[None] = None
    revision: ClassVar[None] = None
    split: ClassVar[str] = "test"
    columns: ClassVar[dict[str, str]] = {}

    task: str
    """Name of the task, such as `STSBenchmark` or `SciFact`."""
    prompts: dict[str, str] | None = None
    """Role (`text`, `query` or `corpus`) -> name of a prompt in `model.prompts`. Default: those for queries and
    documents if the task distinguishes the two."""

    @property
    def label(self) -> str:
        return self.name or self.task

    @property
    def origin(self) -> str:
        return f"mteb:{self.task}"

    def load(self, seed: int, training: TrainAndHoldout | None) -> Task:
        try:
            import mteb
        except ImportError as error:
            raise RecipeError(f"evaluator `{self.label}` needs the package mteb: install the extra `mteb`") from error
        try:
            return Task(mteb.get_task(self.task))
        except KeyError as error:
            raise RecipeError(f"evaluator `{self.label}`: mteb has no such task: {error.args[0]}") from error

    def measure(self, rows: Task, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """`main_score`, without rows to resample. Raises HubError if the task's data cannot be downloaded."""
        import mteb

        try:
            model = Adapter(embed, similarity)
            result = mteb.evaluate(model, rows.task, cache=None, co2_tracker=False, show_progress_bar=False)
        except OSError as error:
            raise HubError(f"the data of the mteb task {self.task} cannot be downloaded: {error}") from error
        score = float(result.task_results[0].get_score())
        return {"main_score": Statistic(0, lambda weight_r: score)}

    def columns_of(self, rows: Any) -> dict[str, Column]:
        return {}

    def examples_of(self, rows: Any) -> None:
        """None: mteb does not expose the rows."""

    def problems_of(self, rows: Any) -> list[Problem]:
        return []


class Task(NamedTuple):
    """A task in place of loaded rows; it has no texts to share with other evaluators."""

    task: Any
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
