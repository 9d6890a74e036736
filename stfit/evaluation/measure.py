"""Run evaluators on an encoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from stfit.errors import DivergedError, RecipeError, did_you_mean
from stfit.evaluation.evaluator import Evaluator
from stfit.evaluation.source import When

if TYPE_CHECKING:
    from stfit.data.examples import Examples
    from stfit.encoder.encoder import Encoder

Evaluators = list[tuple[Evaluator, "Examples"]]
"""Evaluators with their rows."""


def measure(encoder: Encoder, evaluators: Evaluators, moment: When) -> dict[str, float]:
    """`<evaluator>/<metric>` -> value, of the evaluators that run at this moment.

    Texts that they share are embedded once. Raises DivergedError where an embedding is not finite.
    """
    embeddings: dict[tuple[str, str], np.ndarray] = {}
    metrics: dict[str, float] = {}
    for evaluator, examples in evaluators:
        if moment not in evaluator.when:
            continue
        prompts = {role: encoder.prompt_of_role(role, evaluator.prompts) for role in examples.texts}

        def embed(role: str, examples: Examples = examples, prompts: dict[str, str] = prompts) -> np.ndarray:
            texts = [text or "" for text in examples.texts[role]]
            new = list(dict.fromkeys(text for text in texts if (prompts[role], text) not in embeddings))
            vectors = encoder.encode(new, prompt=prompts[role])
            if not np.isfinite(vectors).all():
                raise DivergedError("the model's embeddings are not finite. Lower train.learning_rate")
            embeddings.update({(prompts[role], text): vector for text, vector in zip(new, vectors, strict=True)})
            return np.stack([embeddings[prompts[role], text] for text in texts])

        for name, value in evaluator.measure(examples, embed).items():
            metrics[f"{evaluator.label}/{name}"] = value
    return metrics


def main_metrics(evaluators: Evaluators, similarity: str) -> list[str]:
    """The one metric of each evaluator that a table shows: the one of the model's own similarity."""
    return [f"{evaluator.label}/{evaluator.main_metric}_{similarity}" for evaluator, _ in evaluators]


def require_metric(name: str | None, evaluators: Iterable[Evaluator]) -> None:
    """Refuse a metric that no evaluation during the run will give."""
    known = [
        f"{evaluator.label}/{metric}"
        for evaluator in evaluators
        if "during" in evaluator.when
        for metric in evaluator.metrics
    ]
    if name is not None and name not in known:
        raise RecipeError(
            f"train.best: no evaluation during the run gives `{name}`: {did_you_mean(name, known) or 'see eval'}"
        )
