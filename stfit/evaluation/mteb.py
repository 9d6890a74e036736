"""A task of the Massive Text Embedding Benchmark, by its name (Muennighoff et al., https://arxiv.org/abs/2210.07316).

Needs the extra: pip install stfit[mteb].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from stfit.errors import HubError, RecipeError
from stfit.evaluation.base import Embed, Named, TrainAndHoldout
from stfit.evaluation.statistic import Statistic
from stfit.lazy import lazy
from stfit.similarity import pairwise_similarity, similarity_matrix

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

ROLE_OF_PROMPT = {"query": "query", "document": "corpus"}


class Mteb(Named):
    """A task of the mteb package, with its own data and its own main score: the mean over its subsets and splits."""

    type: Literal["mteb"] = "mteb"
    format: ClassVar[str] = ""
    symmetric: ClassVar[bool] = False
    per_similarity: ClassVar[bool] = False
    main_metric: ClassVar[str] = "main_score"
    metrics: ClassVar[list[str]] = ["main_score"]
    prompt_roles: ClassVar[tuple[str, ...]] = ("text", "query", "corpus")
    # What evaluators on rows of their own say about those.
    dataset: ClassVar[None] = None
    from_: ClassVar[None] = None
    config: ClassVar[None] = None
    revision: ClassVar[None] = None
    split: ClassVar[str] = "test"
    columns: ClassVar[dict[str, str]] = {}

    task: str
    """Name of the task: `STSBenchmark`, `SciFact`."""
    prompts: dict[str, str] | None = None
    """Role (`text`, `query` or `corpus`) -> name of a prompt in `model.prompts`; default: those of query and document
    where the task tells the two apart."""

    @property
    def label(self) -> str:
        """First part of the metric's name."""
        return self.name or self.task

    @property
    def origin(self) -> str:
        """Where the rows come from."""
        return f"mteb:{self.task}"

    def load(self, seed: int, own: TrainAndHoldout | None) -> Task:
        """The task; its data is read when it is measured."""
        try:
            import mteb
        except ImportError as error:
            raise RecipeError(f"evaluator `{self.label}` needs the package mteb: pip install stfit[mteb]") from error
        try:
            return Task(mteb.get_task(self.task))
        except KeyError as error:
            raise RecipeError(f"evaluator `{self.label}`: mteb has no such task: {error.args[0]}") from error

    def measure(self, rows: Task, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """`main_score`, which gives no rows to resample. Raises HubError where the task's data can't be fetched."""
        import mteb

        try:
            result = mteb.evaluate(
                Adapter(embed, similarity),
                rows.task,
                cache=None,
                co2_tracker=False,
                show_progress_bar=False,
            )
        except OSError as error:
            raise HubError(f"the data of the mteb task {self.task} can't be fetched: {error}") from error
        score = float(result.task_results[0].get_score())
        return {"main_score": Statistic(0, lambda weight_r: score)}

    def examples_of(self, rows: Any) -> None:
        """The task keeps its rows for itself."""


class Task:
    """A task as what an evaluator loads; it shares no texts with others."""

    texts: ClassVar[dict[str, list[str]]] = {}

    def __init__(self, task: Any) -> None:
        self.task = task


class Adapter:
    """The model as mteb sees it."""

    def __init__(self, embed: Embed, similarity: str) -> None:
        self.embed = embed
        self.name = similarity

    @property
    def mteb_model_meta(self) -> Any:
        """Nothing that would be looked up."""
        from mteb.models import ModelMeta

        return ModelMeta.create_empty({"name": "stfit/model", "revision": "none"})

    def encode(self, inputs: Iterable[dict[str, list[str]]], *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Embeddings of batches of texts; mteb also says which task, split and subset they are of."""
        texts = [text for batch in inputs for text in batch["text"]]
        return self.embed(ROLE_OF_PROMPT.get(str(getattr(prompt_type, "value", prompt_type)), "text"), texts)

    def similarity(self, one_qd: Any, other_cd: Any) -> torch.Tensor:
        """Every row with every row."""
        return similarity_matrix(self.name, torch.as_tensor(one_qd), torch.as_tensor(other_cd))

    def similarity_pairwise(self, one_rd: Any, other_rd: Any) -> torch.Tensor:
        """Row by row."""
        return pairwise_similarity(self.name, torch.as_tensor(one_rd), torch.as_tensor(other_rd))
