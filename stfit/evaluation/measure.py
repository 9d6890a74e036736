"""Run evaluators on an encoder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stfit.data.embeddings.of_texts import EmbeddingsOfTexts, embeddings_of_texts
from stfit.distributed import all_gather_numpy, broadcast_object, partition, rank
from stfit.errors import DivergedError, RecipeError, overflow_advice
from stfit.evaluation.base import Embed, When
from stfit.evaluation.precision import measure_stored
from stfit.evaluation.registry import Evaluator
from stfit.evaluation.slices import WORST, sliced
from stfit.evaluation.statistic import Statistic
from stfit.progress import task

if TYPE_CHECKING:
    from stfit.encoder.encoder import Encoder
    from stfit.losses.softmax_classifier import NamedHead

Evaluators = list[tuple[Evaluator, Any]]


Details = dict[str, list[dict[str, Any]]]
"""Evaluator -> what is told of each of its rows."""


def measure(
    encoder: Encoder,
    evaluators: Evaluators,
    moment: When,
    dims: Sequence[int] = (),
    details: Details | None = None,
    head: NamedHead | None = None,
) -> dict[str, Statistic]:
    """`<evaluator>/<metric>` -> statistic, for the evaluators that run at this moment; shared texts are embedded once.

    `dims`: prefixes to measure as well, as `<evaluator>@<dim>/<metric>`. `details`: filled for each evaluator. `head`:
    of the softmax loss that the model was trained with. Raises DivergedError.
    """
    due = [(evaluator, rows) for evaluator, rows in evaluators if moment in evaluator.when]
    full_dim = encoder.output_dim
    sizes = {"": full_dim} | {f"@{dim}": dim for dim in dims if dim <= full_dim}
    is_used_again = any(evaluator.stored_precisions for evaluator, _ in due) or details is not None
    cache = EmbeddingCache(encoder, due, keep_all=len(set(sizes.values())) > 1 or is_used_again)
    statistics: dict[str, Statistic] = {}
    for evaluator, rows in due:
        with task(f"evaluating {evaluator.label}"):
            found = {
                dim: _measure_stored(evaluator, rows, cache.embed_for(evaluator, dim), encoder.config.similarity, head)
                for dim in set(sizes.values())
            }
            if details is not None:
                embed = cache.embed_for(evaluator, full_dim)
                details[evaluator.label] = _describe_rows(
                    evaluator, rows, found[full_dim][""], evaluator.details(rows, embed, encoder.config.similarity)
                )
        names = evaluator.slices_of(rows)
        for suffix, dim in sizes.items():
            statistics |= _named(evaluator, suffix, found[dim], names)
    return statistics


def _measure_stored(
    evaluator: Evaluator, rows: Any, embed: Embed, similarity: str, head: NamedHead | None
) -> dict[str, dict[str, Statistic]]:
    """Precision (empty: float32) -> metric -> statistic."""
    compute: Any = evaluator.measure
    compute = partial(compute, head=head) if evaluator.needs_head else compute
    found = {"": compute(rows, embed, similarity)}
    _require_declared(evaluator, found[""])
    if evaluator.stored_precisions:
        found |= measure_stored(evaluator, compute, rows, embed, similarity)
    return found


def _named(
    evaluator: Evaluator, suffix: str, found: dict[str, dict[str, Statistic]], slices: list[str] | None
) -> dict[str, Statistic]:
    """All metrics by their names; of slices and precisions, the main ones. `suffix`: of a dimension."""
    named = {f"{evaluator.label}{suffix}/{name}": statistic for name, statistic in found[""].items()}
    for precision, of_precision in found.items():
        end = f"{suffix}#{precision}" if precision else suffix
        main = {name: statistic for name, statistic in of_precision.items() if _is_main(evaluator, name)}
        parts = {"": main} | ({} if slices is None else sliced(main, slices))
        for part, of_part in parts.items():
            prefix = f"{evaluator.label}{f'[{part}]' if part else ''}{end}"
            named |= {f"{prefix}/{name}": statistic for name, statistic in of_part.items()}
    return named


def _describe_rows(
    evaluator: Evaluator, rows: Any, measured: dict[str, Statistic], more: list[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """Texts, slice, details and the metrics that are means, of each row."""
    columns: dict[str, list[Any]] = dict(evaluator.texts_of_rows(rows))
    names = evaluator.slices_of(rows)
    columns |= {} if names is None else {"slice": names}
    count = len(next(iter(columns.values()), more or []))
    values = {name: found.value_r.tolist() for name, found in measured.items() if found.value_r is not None}
    columns |= {name: value_r for name, value_r in values.items() if len(value_r) == count}
    described = [{name: column[i] for name, column in columns.items()} for i in range(count)]
    return described if more is None else [row | more[i] for i, row in enumerate(described)]


def _is_main(evaluator: Evaluator, metric: str) -> bool:
    """Whether a metric is a main one, for any similarity."""
    return any(f"{metric}_".startswith(f"{main}_") for main in evaluator.main_metrics)


def _require_declared(evaluator: Evaluator, found: dict[str, Statistic]) -> None:
    """Raise RecipeError if an evaluator of a package does not return what it declares."""
    wrong = [name for name in evaluator.metrics if not isinstance(found.get(name), Statistic)]
    if wrong:
        raise RecipeError(f"evaluator `{evaluator.tag()}` declares {', '.join(wrong)}, but measures no such Statistic")


def values_of(statistics: dict[str, Statistic]) -> dict[str, float]:
    """Metric -> value as computed on rank 0, identical on every rank."""
    return broadcast_object({name: statistic.value for name, statistic in statistics.items()})


class EmbeddingCache:
    def __init__(self, encoder: Encoder, evaluators: Evaluators, keep_all: bool) -> None:
        self.encoder = encoder
        self.keep_all = keep_all
        self.embeddings: dict[tuple[str, str], np.ndarray] = {}
        self.stored: list[EmbeddingsOfTexts] = []
        """On disk, as `stfit encode` wrote them with this model."""
        self.uses: Counter[tuple[str, str]] = Counter()
        """(prompt, text) -> number of uses by evaluators and roles."""
        for evaluator, rows in evaluators:
            for folder in evaluator.folders_of_parts:
                stored = embeddings_of_texts(folder, encoder.fingerprint, encoder.output_dim)
                self.stored += [stored] if stored else []
            for role, texts in rows.texts.items():
                prompt = prompt_of(evaluator, encoder, role)
                self.uses.update({(prompt, text or "") for text in texts})

    def embed_for(self, evaluator: Evaluator, dim: int) -> Embed:
        return lambda role, texts: self.embed(prompt_of(evaluator, self.encoder, role), texts)[:, :dim]

    def embed(self, prompt: str, texts: list[str]) -> np.ndarray:
        """Embeddings [texts, dim]; each text is embedded on first use, by one of the ranks."""
        distinct = dict.fromkeys(texts)
        fresh: dict[str, np.ndarray] = {}
        for stored in self.stored:
            if stored.prompt == prompt:
                known = [text for text in distinct if text in stored.row_of]
                fresh |= zip(known, stored.take(known), strict=True)
        new = [text for text in distinct if text not in fresh and (prompt, text) not in self.embeddings]
        shares = partition([len(text) for text in new])
        local = self.encoder.encode([new[i] for i in shares[rank()]], prompt=prompt)
        vectors = all_gather_numpy(local, shares)
        if not np.isfinite(vectors).all():
            advice = overflow_advice(self.encoder.precision)
            raise DivergedError(f"the model's embeddings are not finite. {advice}")
        fresh |= zip(new, vectors, strict=True)
        for text, vector in zip(new, vectors, strict=True):
            if self.keep_all or self.uses[prompt, text] > 1:
                self.embeddings[prompt, text] = vector.copy()  # a view would keep the whole chunk alive
        return np.stack([fresh[text] if text in fresh else self.embeddings[prompt, text] for text in texts])


def prompt_of(evaluator: Evaluator, encoder: Encoder, role: str) -> str:
    if evaluator.symmetric:
        return encoder.prompt((evaluator.prompts or {}).get(role))
    return encoder.role_prompt(role, evaluator.prompts)


def main_metrics(evaluators: Evaluators, similarity: str, dims: Sequence[int] = ()) -> list[str]:
    """The metrics of each evaluator to show in tables: those for the model's own similarity."""
    return [
        f"{evaluator.label}{suffix}/{metric}{f'_{similarity}' if evaluator.per_similarity else ''}"
        for evaluator, _ in evaluators
        for suffix in _suffixes(evaluator, dims)
        for metric in (evaluator.main_metrics[:1] if _is_derived(suffix) else evaluator.main_metrics)
    ]


def _suffixes(evaluator: Evaluator, dims: Sequence[int]) -> list[str]:
    """What may follow the name of an evaluator in a metric; of the slices, the lowest stands for all."""
    parts = ["", *([f"[{WORST}]"] if evaluator.by else [])]
    stored = ["", *(f"#{precision}" for precision in evaluator.stored_precisions)]
    return [f"{part}{dim}{end}" for part in parts for dim in ("", *(f"@{dim}" for dim in dims)) for end in stored]


def _is_derived(suffix: str) -> bool:
    """Whether only main metrics have it: that of slices and of precisions."""
    return "[" in suffix or "#" in suffix


def known_metrics(evaluators: Iterable[Evaluator], moment: When | None, dims: Sequence[int] = ()) -> list[str]:
    """The metrics that are measured at this moment; at any, if it is None."""
    return [
        f"{evaluator.label}{suffix}/{metric}"
        for evaluator in evaluators
        if moment is None or moment in evaluator.when
        for suffix in _suffixes(evaluator, dims)
        for metric in evaluator.metrics
        if not _is_derived(suffix) or _is_main(evaluator, metric)
    ]


def evaluator_of(metric: str, labels: Iterable[str]) -> str:
    """The one of `labels` that a metric is named after; empty if it is none of them."""
    return max((label for label in labels if re.match(rf"{re.escape(label)}[/@#\[]", metric)), key=len, default="")
