"""The rows of a recipe as batches: tokenized once with their labels, and the order in which steps take them."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np

from stfit.data.batching.batches import Batch, TokenTable, tokenize_examples
from stfit.data.batching.shuffle_buffer import LazyBatch, StreamingBatches
from stfit.data.checks.compatibility import check_kind
from stfit.data.mapping.examples import Examples
from stfit.distributed import rank_zero_first
from stfit.encoder.encoder import Encoder
from stfit.errors import ModelError
from stfit.evaluation.measure import Evaluators
from stfit.recipe.recipe import Objective, Recipe
from stfit.runtime.signals import SignalHandler
from stfit.training.batch_schedule import BatchSchedule, ScheduledBatch
from stfit.workflows.check.estimate import build_schedule
from stfit.workflows.check.leakage import leave_out_overlap
from stfit.workflows.train.loss_labels import labels_of_losses

log = logging.getLogger("stfit")


def schedule_batches(
    recipe: Recipe,
    encoder: Encoder,
    training: list[Examples],
    processes: int,
    signals: SignalHandler,
    evaluators: Evaluators,
) -> BatchSchedule:
    """The batches of every step. Streams leave out the rows that `evaluators` measure on, if the recipe says so."""
    streams = {
        number: StreamingBatches(
            objective.data,
            str(objective.sampler),
            recipe.train.batch_size * processes,
            objective.min_batch_size,
            recipe.seed,
            partial(check_kind, objective.needs),
            partial(_tokenize, encoder, objective),
            signals.interrupt_long_step,
            leave_out_overlap(recipe, objective.data, evaluators),
        )
        for number, objective in enumerate(recipe.objectives_by_path.values())
        if objective.data.streaming
    }
    return build_schedule(recipe, training, processes, streams)


def tokenize_training(
    recipe: Recipe, encoder: Encoder, training: list[Examples], schedule: BatchSchedule
) -> list[TokenTable]:
    """A table of each objective, with the rows that the schedule uses. Raises ModelError, DataError, RecipeError."""
    pairs = list(zip(recipe.objectives_by_path.values(), training, strict=True))
    used = [schedule.rows_of(number) for number in range(len(pairs))]
    for (objective, examples), rows in zip(pairs, used, strict=True):
        if rows is not None and len(examples) > 2 * len(rows):
            message = "%s: %d steps train on %d of %d examples, drawn from all of them; `limit` reads only the first"
            log.info(message, objective.data.dataset, schedule.total_steps, len(rows), len(examples))
    with rank_zero_first():
        return [_tokenize(encoder, *pair, rows) for pair, rows in zip(pairs, used, strict=True)]


def _tokenize(encoder: Encoder, objective: Objective, examples: Examples, rows: np.ndarray | None = None) -> TokenTable:
    prompts = {role: encoder.role_prompt(role, objective.data.prompts) for role in examples.texts}
    cache_key = None if objective.data.streaming else encoder.tokenizer.fingerprint
    table = tokenize_examples(examples, prompts, encoder.tokenizer, cache_key, encoder.prompt_skip, rows)
    table = replace(table, labels=labels_of_losses(table, objective, encoder))
    if objective.views and not encoder.has_dropout:
        raise ModelError(
            f"loss `{objective.loss_names}` needs dropout to tell the two views of a text apart, and this model has "
            "none: set `model.dropout: 0.1`"
        )
    return table.duplicate_columns(objective.views)


def batch_of(scheduled: ScheduledBatch, tables: list[TokenTable], distinct: bool) -> Batch:
    """`distinct`: equal texts of a column are in the batch once."""
    rows = scheduled.rows
    return rows.batch(distinct) if isinstance(rows, LazyBatch) else tables[scheduled.objective].batch(rows, distinct)
