"""Run evaluators on an encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stfit.distributed import all_gather_numpy, broadcast_object, partition, rank
from stfit.errors import DivergedError
from stfit.evaluation.base import Embed, When
from stfit.evaluation.registry import Evaluator
from stfit.evaluation.statistic import Statistic

if TYPE_CHECKING:
    from stfit.encoder.encoder import Encoder

Evaluators = list[tuple[Evaluator, Any]]
"""Evaluators with the rows that they loaded."""


def measure(encoder: Encoder, evaluators: Evaluators, moment: When, dims: Sequence[int] = ()) -> dict[str, Statistic]:
    """`<evaluator>/<metric>` -> statistic, of the evaluators that run at this moment.

    Texts that they share are embedded once. `dims`: prefixes of the embedding that are measured too, as
    `<evaluator>@<dim>/<metric>`. Raises DivergedError where an embedding is not finite.
    """
    due = [(evaluator, rows) for evaluator, rows in evaluators if moment in evaluator.when]
    whole = encoder.output_dim
    sizes = {"": whole} | {f"@{dim}": dim for dim in dims if dim <= whole}
    memory = EmbeddingCache(encoder, due, keep_all=len(set(sizes.values())) > 1)
    found: dict[str, Statistic] = {}
    for evaluator, rows in due:
        measured = {
            dim: evaluator.measure(rows, memory.embed_for(evaluator, dim), encoder.config.similarity)
            for dim in set(sizes.values())
        }
        found |= {
            f"{evaluator.label}{at}/{name}": statistic
            for at, dim in sizes.items()
            for name, statistic in measured[dim].items()
        }
    return found


def values_of(found: dict[str, Statistic]) -> dict[str, float]:
    """Metric -> value, as the first process has it: the same in all."""
    return broadcast_object({name: statistic.value for name, statistic in found.items()})


class EmbeddingCache:
    """Embeddings of the texts that are needed more than once."""

    def __init__(self, encoder: Encoder, evaluators: Evaluators, keep_all: bool) -> None:
        self.encoder = encoder
        self.keep_all = keep_all
        self.embeddings: dict[tuple[str, str], np.ndarray] = {}
        """(prompt, text) -> embedding."""
        self.uses: Counter[tuple[str, str]] = Counter()
        """(prompt, text) -> how many evaluators and roles ask for it."""
        for evaluator, rows in evaluators:
            for role, texts in rows.texts.items():
                prompt = prompt_of(evaluator, encoder, role)
                self.uses.update({(prompt, text or "") for text in texts})

    def embed_for(self, evaluator: Evaluator, dim: int) -> Embed:
        """How an evaluator gets its embeddings, cut to `dim`."""
        return lambda role, texts: self.embed(prompt_of(evaluator, self.encoder, role), texts)[:, :dim]

    def embed(self, prompt: str, texts: list[str]) -> np.ndarray:
        """Embeddings [texts, dim]; each text is embedded when it is first asked for, by one of the processes."""
        new = [text for text in dict.fromkeys(texts) if (prompt, text) not in self.embeddings]
        shares = partition([len(text) for text in new])
        own = self.encoder.encode([new[i] for i in shares[rank()]], prompt=prompt)
        vectors = all_gather_numpy(own, shares)
        if not np.isfinite(vectors).all():
            raise DivergedError("the model's embeddings are not finite. Lower train.learning_rate")
        fresh = dict(zip(new, vectors, strict=True))
        for text, vector in fresh.items():
            if self.keep_all or self.uses[prompt, text] > 1:
                self.embeddings[prompt, text] = vector.copy()  # or it would hold its whole chunk
        return np.stack([fresh[text] if text in fresh else self.embeddings[prompt, text] for text in texts])


def prompt_of(evaluator: Evaluator, encoder: Encoder, role: str) -> str:
    """What stands before the texts of a role."""
    if evaluator.symmetric:
        return encoder.prompt((evaluator.prompts or {}).get(role))
    return encoder.role_prompt(role, evaluator.prompts)


def main_metrics(evaluators: Evaluators, similarity: str, dims: Sequence[int] = ()) -> list[str]:
    """The one metric of each evaluator that a table shows: the one of the model's own similarity."""
    return [
        f"{evaluator.label}{at}/{evaluator.main_metric}{f'_{similarity}' if evaluator.per_similarity else ''}"
        for evaluator, _ in evaluators
        for at in ("", *(f"@{dim}" for dim in dims))
    ]


def known_metrics(evaluators: Iterable[Evaluator], moment: When, dims: Sequence[int] = ()) -> list[str]:
    """The names of all metrics that evaluators give at this moment."""
    return [
        f"{evaluator.label}{at}/{metric}"
        for evaluator in evaluators
        if moment in evaluator.when
        for at in ("", *(f"@{dim}" for dim in dims))
        for metric in evaluator.metrics
    ]


def evaluator_of(metric: str) -> str:
    """The evaluator's part of a metric's name."""
    return metric.partition("/")[0].partition("@")[0]
