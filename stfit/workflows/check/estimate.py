"""The batch schedule of a recipe, the warnings that need it, and an estimate of steps, tokens and memory."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from stfit.data.batching.batches import MISSING, TokenTable, number_texts
from stfit.data.batching.sampling import sample_batches
from stfit.data.cache.tokens import Tokenize
from stfit.data.checks.lengths import cut_texts, empty_texts, quantiles, unknown_tokens
from stfit.data.mapping.examples import Examples
from stfit.encoder.folder.model_config import ModelInfo
from stfit.errors import Problem
from stfit.evaluation.base import When
from stfit.evaluation.measure import Evaluators
from stfit.recipe.recipe import Recipe
from stfit.training.batch_schedule import BatchSchedule, Streams, build_batch_schedule
from stfit.training.state import DEFAULT_EPOCHS, build_intervals
from stfit.workflows.check.memory import MIB, Footprint, Range, clip_lengths, forecast_memory

SAMPLED_TEXTS = 1000
"""Texts of an evaluator whose tokens are counted."""


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
                objective.min_batch_size,
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
    for number, (objective, table, epoch_batches) in enumerate(
        zip(recipe.objectives_by_path.values(), tables, schedule.objectives, strict=True)
    ):
        tokens, lengths = table.texts_of(schedule.rows_of(number))
        of_objective = [*cut_texts(lengths, max_seq_length), *empty_texts(lengths)]
        of_objective += unknown_tokens(tokens, unknown_id)
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
    recipe: Recipe,
    tables: list[TokenTable],
    schedule: BatchSchedule,
    footprint: Footprint,
    evaluators: Evaluators | None,
    tokenize: Tokenize,
) -> dict[str, Any]:
    """`tokens` are of the whole run, `lengths` quantiles in tokens; what is unknown is None."""
    max_seq_length = footprint.max_seq_length
    tokens_of_batch = [
        _tokens_in(table, epoch_batches(0), max_seq_length)
        for table, epoch_batches in zip(tables, schedule.objectives, strict=True)
    ]
    rates = schedule.sampling_rates
    batches = [rate * len(tokens) for rate, tokens in zip(rates, tokens_of_batch, strict=True)]
    tokens_of_epoch = sum(rate * sum(tokens) for rate, tokens in zip(rates, tokens_of_batch, strict=True))
    times = _evaluations(recipe, schedule.total_steps)
    memory = _in_mib(forecast_memory(footprint))
    memory_range = memory and [sum(ends) for ends in zip(*memory.values(), strict=True)]
    return {
        "steps": schedule.total_steps,
        "tokens": round(tokens_of_epoch * (schedule.total_steps / schedule.steps_per_epoch)),
        "evaluations": sum(times.values()),
        "evaluation_tokens": None
        if evaluators is None
        else _tokens_to_evaluate(evaluators, times, tokenize, max_seq_length),
        "lengths": quantiles(np.concatenate([table.lengths() for table in tables])),
        "max_seq_length": max_seq_length,
        "memory_mib": memory_range and memory_range[1],
        "memory_range_mib": memory_range,
        "memory_parts": memory,
        "objectives": [
            {
                "dataset": objective.data.dataset,
                "loss": objective.loss_names,
                "rows": len(table),
                "share": number / sum(batches),
            }
            for objective, table, number in zip(recipe.objectives_by_path.values(), tables, batches, strict=True)
        ],
    }


def _in_mib(parts: dict[str, Range] | None) -> dict[str, list[int]] | None:
    return None if parts is None else {name: [round(end / MIB) for end in ends] for name, ends in parts.items()}


def measure_footprint(
    recipe: Recipe,
    tables: list[TokenTable],
    schedule: BatchSchedule,
    base: ModelInfo,
    max_seq_length: int | None,
    evaluators: Evaluators,
) -> Footprint:
    footprint = Footprint(recipe, base, tables, max_seq_length, 0, evaluators)
    largest = 0
    for table, epoch_batches in zip(tables, schedule.objectives, strict=True):
        length_cr = _lengths(table, max_seq_length)
        at_once = len(length_cr) * min(recipe.train.mini_batch_size or recipe.train.batch_size, length_cr.shape[1])
        for rows in epoch_batches(0):
            lengths = length_cr[:, rows].reshape(-1)
            if footprint.layout == "padded":
                lengths = np.full_like(lengths, lengths.max())
            largest = max(largest, int(np.add.reduceat(lengths, np.arange(0, len(lengths), at_once)).max()))
    return replace(footprint, tokens_at_once=min(largest, recipe.train.mini_batch_tokens or largest))


def _tokens_in(table: TokenTable, epoch: list[np.ndarray], max_seq_length: int | None) -> list[int]:
    tokens_of_row = _lengths(table, max_seq_length).sum(axis=0)
    return [int(tokens_of_row[rows].sum()) for rows in epoch]


def _lengths(table: TokenTable, max_seq_length: int | None) -> np.ndarray:
    """Tokens of each text [columns, rows]; 0 for a missing one."""
    lengths = clip_lengths(table.lengths(), max_seq_length)
    return np.stack([np.where(ids == MISSING, 0, lengths[ids]) for ids in table.text_ids.values()])


def _evaluations(recipe: Recipe, total_steps: int) -> dict[When, int]:
    """Moment -> how often the evaluators of it run. The last step has the model of the end, unless the best is kept."""
    every = build_intervals(recipe.train, total_steps).evaluate_every
    during = -(-total_steps // every) - (recipe.train.best is None)
    times: dict[When, int] = {"start": 1, "during": during, "end": 1}
    named = {moment for evaluator in recipe.eval for moment in evaluator.when}
    return {moment: number for moment, number in times.items() if moment in named}


def _tokens_to_evaluate(
    evaluators: Evaluators, times: dict[When, int], tokenize: Tokenize, max_seq_length: int | None
) -> int | None:
    """Of all evaluations, estimated from some texts of each evaluator; None if one has its texts elsewhere."""
    tokens = 0.0
    for evaluator, rows in evaluators:
        texts = list({text for column in rows.texts.values() for text in column if text})
        if not texts:
            return None
        sampled = sorted(texts)[:: -(-len(texts) // SAMPLED_TEXTS)]
        lengths = clip_lengths(np.array([len(ids) for ids in tokenize(sampled)]), max_seq_length)
        tokens += lengths.mean() * len(texts) * sum(times[moment] for moment in set(evaluator.when))
    return round(tokens)
