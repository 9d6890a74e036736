"""The batch schedule of a recipe, the warnings that need it, and an estimate of steps, tokens and memory."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from stfit.data.batching.batches import MISSING, TokenTable, number_texts
from stfit.data.batching.sampling import sample_batches
from stfit.data.checks.lengths import cut_texts, empty_texts, quantiles, unknown_tokens
from stfit.data.mapping.examples import Examples
from stfit.encoder.folder.model_config import ModelInfo
from stfit.errors import Problem
from stfit.recipe.recipe import Recipe
from stfit.training.batch_schedule import BatchSchedule, Streams, build_batch_schedule
from stfit.training.state import DEFAULT_EPOCHS, build_intervals

BYTES_PER_WEIGHT = 16
"""float32 weight, gradient and the two moments of AdamW."""
BYTES_PER_FROZEN_WEIGHT = 4
"""The weight alone, when only adapters are trained."""
BYTES_PER_ACTIVATION = 4
KEPT_PER_TOKEN = 25
"""Numbers of size `hidden` that a transformer layer keeps per token for the backward pass. 17 by counting (Korthikanti
et al., 2022, https://arxiv.org/abs/2205.05198, attention scores left out); measured, with what PyTorch adds: 25."""
LIBRARIES_MIB = 450
"""torch and transformers themselves."""


def build_schedule(
    recipe: Recipe, training: list[Examples], processes: int = 1, streams: Streams | None = None
) -> BatchSchedule:
    train = recipe.train
    objectives = list(recipe.objectives_by_path.values())
    weights = [objective.weight for objective in objectives if objective.weight is not None]
    # An epoch is asked for several times, to count, to check and to train: the last one is cached.
    epoch_batches = [
        lru_cache(maxsize=1)(
            partial(
                sample_batches,
                str(objective.sampler),
                number_texts(examples),
                examples.label,
                train.batch_size * processes,
                recipe.seed,
                examples.fingerprint,
                objective.loss.min_batch_size,
            )
        )
        for objective, examples in zip(objectives, training, strict=True)
    ]
    epochs = train.epochs or DEFAULT_EPOCHS
    return build_batch_schedule(
        epoch_batches, weights or None, recipe.seed, train.accumulate_steps, epochs, train.max_steps, streams
    )


def lint_schedule(
    recipe: Recipe,
    tables: list[TokenTable],
    schedule: BatchSchedule,
    max_seq_length: int | None,
    unknown_id: int | None,
    processes: int = 1,
) -> list[Problem]:
    """Raises DataError if the base's tokenizer knows too little of the texts."""
    problems = []
    for objective, table, epoch_batches in zip(
        recipe.objectives_by_path.values(), tables, schedule.objectives, strict=True
    ):
        of_objective = [*cut_texts(table.lengths(), max_seq_length), *empty_texts(table.lengths())]
        of_objective += unknown_tokens(table.flat, unknown_id)
        if not objective.data.streaming:
            batch_size = recipe.train.batch_size * processes
            of_objective += _lint_batches(epoch_batches(0), len(table), batch_size, str(objective.sampler))
        problems += [replace(problem, file=objective.data.dataset) for problem in of_objective]
    return problems + _lint_intervals(recipe, schedule)


SMALL_BATCHES = {
    "no_duplicates": "rows that share a text are never in one batch, and few texts differ",
    "group_by_label": "every batch needs two labels, one of them twice, and few rows have another label than most",
}
"""Sampler -> why its batches are small."""


def _lint_batches(epoch: list[np.ndarray], examples: int, batch_size: int, sampler: str) -> Iterator[Problem]:
    if unused := examples - sum(map(len, epoch)):
        message = f"{unused} of {examples} examples fit into no batch and are not used for training"
        yield Problem(message, "unused-rows")
    if batch_size > examples:
        message = f"train.batch_size: {batch_size} exceeds the {examples} examples, so no batch is ever full"
        yield Problem(message, "batch-size")
        return
    sizes = [len(batch) for batch in epoch[:-1] or epoch]  # the last one holds what is left
    never_full = sampler == "no_duplicates" and max(sizes) < batch_size
    if sampler in SMALL_BATCHES and (never_full or sum(sizes) < batch_size * len(sizes) / 2):
        mean = sum(sizes) / len(sizes)
        message = f"batches hold {mean:.1f} rows on average, and at most {max(sizes)}, not the {batch_size} of"
        yield Problem(f"{message} train.batch_size: {SMALL_BATCHES[sampler]}", "batch-size")


def _lint_intervals(recipe: Recipe, schedule: BatchSchedule) -> list[Problem]:
    intervals = build_intervals(recipe.train, schedule.total_steps)
    steps_of = {
        "warmup_steps": (intervals.warmup_steps, "the learning rate never reaches its maximum"),
        "eval_every_steps": (intervals.evaluate_every, "nothing is measured during training"),
        "save_every_steps": (intervals.save_every, "the run can't be resumed"),
    }
    messages = [
        f"train.{key}: {steps} exceeds the {schedule.total_steps} steps of the run, so {effect}"
        for key, (steps, effect) in steps_of.items()
        if steps > schedule.total_steps
    ]
    batches = sum(len(epoch_batches(0)) for epoch_batches in schedule.objectives)
    accumulated = recipe.train.accumulate_steps
    if accumulated > batches and not recipe.is_streamed:
        messages.append(f"train.accumulate_steps: {accumulated} exceeds the {batches} batches of an epoch")
    return [Problem(message, "longer-than-run") for message in messages]


def estimate(
    recipe: Recipe, tables: list[TokenTable], schedule: BatchSchedule, base: ModelInfo, max_seq_length: int | None
) -> dict[str, Any]:
    """`tokens` are of the whole run, `lengths` quantiles in tokens; `memory_mib` is None if unknown."""
    tokens_of_batch = [
        _tokens_in(table, epoch_batches(0), max_seq_length)
        for table, epoch_batches in zip(tables, schedule.objectives, strict=True)
    ]
    rates = schedule.sampling_rates
    batches = [rate * len(tokens) for rate, tokens in zip(rates, tokens_of_batch, strict=True)]
    tokens_of_epoch = sum(rate * sum(tokens) for rate, tokens in zip(rates, tokens_of_batch, strict=True))
    return {
        "steps": schedule.total_steps,
        "tokens": round(tokens_of_epoch * (schedule.total_steps / schedule.steps_per_epoch)),
        "lengths": quantiles(np.concatenate([table.lengths() for table in tables])),
        "max_seq_length": max_seq_length,
        "memory_mib": _estimate_memory(recipe, base, max(map(max, tokens_of_batch))),
        "objectives": [
            {
                "dataset": objective.data.dataset,
                "loss": objective.loss.type,
                "rows": len(table),
                "share": number / sum(batches),
            }
            for objective, table, number in zip(recipe.objectives_by_path.values(), tables, batches, strict=True)
        ],
    }


def _tokens_in(table: TokenTable, epoch: list[np.ndarray], max_seq_length: int | None) -> list[int]:
    lengths = table.lengths() if max_seq_length is None else table.lengths().clip(max=max_seq_length)
    tokens_of_row = np.sum([np.where(ids == MISSING, 0, lengths[ids]) for ids in table.text_ids.values()], axis=0)
    return [int(tokens_of_row[rows].sum()) for rows in epoch]


def _estimate_memory(recipe: Recipe, base: ModelInfo, tokens: int) -> int | None:
    """MiB that training needs for its largest batch of `tokens` tokens: a rule of thumb."""
    if base.parameters is None or base.hidden_size is None or base.num_layers is None:
        return None
    train = recipe.train
    share = min(1.0, train.mini_batch_size / train.batch_size) if train.mini_batch_size else 1.0
    at_once = min(tokens * share, train.mini_batch_tokens or tokens)
    per_weight = BYTES_PER_WEIGHT if recipe.model.lora is None else BYTES_PER_FROZEN_WEIGHT
    activations = base.num_layers * at_once * base.hidden_size * KEPT_PER_TOKEN * BYTES_PER_ACTIVATION
    return LIBRARIES_MIB + round((base.parameters * per_weight + activations) / 2**20)
