"""What a run will take, from its plan: steps, tokens, memory, and what of the recipe will have no effect."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from stfit.data.batching.batches import MISSING, TokenTable, number_texts
from stfit.data.batching.sampling import count_unused, sample_batches
from stfit.data.checks.lengths import cut_texts, empty_texts, quantiles
from stfit.encoder.folder.model_config import ModelInfo
from stfit.errors import Problem
from stfit.recipe.recipe import Recipe
from stfit.training.batch_schedule import BatchSchedule, Streams, build_batch_schedule
from stfit.training.state import DEFAULT_EPOCHS, build_intervals

BYTES_PER_WEIGHT = 16
"""float32 weight, gradient and the two moments of AdamW."""
BYTES_BESIDE_ADAPTERS = 4
"""The weight alone, where adapters learn in its place."""
BYTES_PER_ACTIVATION = 4
KEPT_PER_TOKEN = 25
"""Numbers of size `hidden` that a transformer layer keeps per token for the backward pass. 17 by counting (Korthikanti
et al., 2022, https://arxiv.org/abs/2205.05198, attention scores left out); measured, with what PyTorch adds: 25."""
LIBRARIES_MIB = 450
"""torch and transformers themselves."""


def plan_run(
    recipe: Recipe,
    tables: list[TokenTable],
    fingerprints: list[str],
    processes: int = 1,
    streams: Streams | None = None,
) -> BatchSchedule:
    """Which rows every step trains on, in all processes together. Raises DataError where no batch can be made."""
    train = recipe.train
    objectives = list(recipe.objectives_by_path.values())
    weights = [objective.weight for objective in objectives if objective.weight is not None]
    # An epoch is asked for several times, to count, to check and to train: the last one made is kept.
    epoch_batches = [
        lru_cache(maxsize=1)(
            partial(
                sample_batches,
                str(objective.sampler),
                number_texts(table.examples),
                table.examples.label,
                train.batch_size * processes,
                recipe.seed,
                fingerprint,
                objective.loss.min_batch_size,
            )
        )
        for objective, table, fingerprint in zip(objectives, tables, fingerprints, strict=True)
    ]
    epochs = train.epochs or DEFAULT_EPOCHS
    return build_batch_schedule(
        epoch_batches, weights or None, recipe.seed, train.accumulate_steps, epochs, train.max_steps, streams
    )


def plan_problems(
    recipe: Recipe, tables: list[TokenTable], plan: BatchSchedule, max_seq_length: int | None, processes: int = 1
) -> list[Problem]:
    """Warnings that need the batches: rows and texts that are not used whole, and durations longer than the run."""
    problems = []
    for objective, table, epoch_batches in zip(
        recipe.objectives_by_path.values(), tables, plan.objectives, strict=True
    ):
        found = [
            *cut_texts(table.lengths(), max_seq_length),
            *empty_texts(table.lengths()),
        ]
        if not objective.data.streaming:
            found += _unused_rows(epoch_batches(0), len(table))
            found += _oversized_batch(recipe.train.batch_size * processes, len(table))
        problems += [replace(problem, file=objective.data.dataset) for problem in found]
    calendar = build_intervals(recipe.train, plan.total_steps)
    durations = {
        "warmup_steps": (calendar.warmup_steps, "the learning rate never reaches its height"),
        "eval_every_steps": (calendar.evaluate_every, "nothing is measured during it"),
        "save_every_steps": (calendar.save_every, "it can't be resumed"),
    }
    problems += [
        Problem(
            f"train.{key}: {steps} is more than the {plan.total_steps} steps of the run: {effect}", "longer-than-run"
        )
        for key, (steps, effect) in durations.items()
        if steps > plan.total_steps
    ]
    epoch = sum(len(epoch_batches(0)) for epoch_batches in plan.objectives)
    if recipe.train.accumulate_steps > epoch and not recipe.is_streamed:
        message = f"train.accumulate_steps: an epoch has only {epoch} batches"
        problems.append(Problem(message, "longer-than-run"))
    return problems


def _unused_rows(epoch: list[np.ndarray], examples: int) -> list[Problem]:
    """Rows that no batch of an epoch holds are seen less than others, or never."""
    left_out = count_unused(epoch, examples)
    message = f"{left_out} of {examples} examples fit into no batch and are not trained on"
    return [Problem(message, "unused-rows")] if left_out else []


def _oversized_batch(batch_size: int, examples: int) -> list[Problem]:
    """Larger than all rows together is a slip of the pen more often than a wish."""
    message = f"train.batch_size: {batch_size} is more than the {examples} examples, so no batch is ever full"
    return [Problem(message, "batch-size")] if batch_size > examples else []


def estimate(
    recipe: Recipe, tables: list[TokenTable], plan: BatchSchedule, base: ModelInfo, max_seq_length: int | None
) -> dict[str, Any]:
    """What a run will take.

    `steps`, `tokens` (of the whole run), `lengths` (quantiles, in tokens), `memory_mib` (None where unknown), and
    `objectives`: dataset, loss, rows and share of the batches of each.
    """
    tokens_of_batch = [
        _tokens_in(table, epoch_batches(0), max_seq_length)
        for table, epoch_batches in zip(tables, plan.objectives, strict=True)
    ]
    epochs = plan.total_steps / plan.steps_per_epoch
    spread = list(zip(plan.sampling_rates, tokens_of_batch, strict=True))
    turns = [speed * len(tokens) for speed, tokens in spread]
    tokens_of_epoch = sum(speed * sum(tokens) for speed, tokens in spread)
    return {
        "steps": plan.total_steps,
        "tokens": round(tokens_of_epoch * epochs),
        "lengths": quantiles(np.concatenate([table.lengths() for table in tables])),
        "max_seq_length": max_seq_length,
        "memory_mib": _memory(recipe, base, max(map(max, tokens_of_batch))),
        "objectives": [
            {"dataset": each.data.dataset, "loss": each.loss.type, "rows": len(table), "share": batches / sum(turns)}
            for each, table, batches in zip(recipe.objectives_by_path.values(), tables, turns, strict=True)
        ],
    }


def _tokens_in(table: TokenTable, epoch: list[np.ndarray], max_seq_length: int | None) -> list[int]:
    """Tokens of each batch, after texts are cut."""
    lengths = table.lengths() if max_seq_length is None else table.lengths().clip(max=max_seq_length)
    tokens_of_row = np.sum([np.where(ids == MISSING, 0, lengths[ids]) for ids in table.text_ids.values()], axis=0)
    return [int(tokens_of_row[rows].sum()) for rows in epoch]


def _memory(recipe: Recipe, base: ModelInfo, tokens: int) -> int | None:
    """MiB that training needs at its largest batch, of `tokens` tokens, as far as a rule of thumb can tell."""
    if base.parameters is None or base.hidden_size is None or base.num_layers is None:
        return None
    train = recipe.train
    share = min(1.0, train.mini_batch_size / train.batch_size) if train.mini_batch_size else 1.0
    at_once = min(tokens * share, train.mini_batch_tokens or tokens)
    per_weight = BYTES_PER_WEIGHT if recipe.model.lora is None else BYTES_BESIDE_ADAPTERS
    kept = base.num_layers * at_once * base.hidden_size * KEPT_PER_TOKEN * BYTES_PER_ACTIVATION
    return LIBRARIES_MIB + round((base.parameters * per_weight + kept) / 2**20)
