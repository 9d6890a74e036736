"""What a run will take, from its plan: steps, tokens, memory, and what of the recipe will have no effect."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np

from stfit.data.batches import MISSING, TokenTable
from stfit.data.lengths import cut_texts, quantiles
from stfit.data.sampling import batches, unused
from stfit.encoder.glance import Glance
from stfit.errors import Problem
from stfit.recipe.recipe import Recipe
from stfit.training.plan import Plan, build_plan
from stfit.training.progress import DEFAULT_EPOCHS, build_calendar

BYTES_PER_WEIGHT = 16
"""float32 weight, gradient and the two moments of AdamW."""
BYTES_PER_ACTIVATION = 4
KEPT_PER_TOKEN = 25
"""Numbers of size `hidden` that a transformer layer keeps per token for the backward pass. 17 by counting (Korthikanti
et al., 2022, https://arxiv.org/abs/2205.05198, attention scores left out); measured, with what PyTorch adds: 25."""
LIBRARIES_MIB = 450
"""torch and transformers themselves."""


def plan_run(recipe: Recipe, table: TokenTable, fingerprint: str) -> Plan:
    """Which rows every step trains on. Raises DataError where no batch can be made."""
    train = recipe.train
    epoch_batches = partial(
        batches,
        recipe.sampler,
        table.matrix(),
        table.label,
        train.batch_size,
        recipe.seed,
        fingerprint,
        recipe.loss.smallest_batch,
    )
    # An epoch is asked for several times, to count, to check and to train: the last one made is kept.
    kept = lru_cache(maxsize=1)(epoch_batches)
    return build_plan(kept, train.accumulate_steps, train.epochs or DEFAULT_EPOCHS, train.max_steps)


def plan_problems(recipe: Recipe, table: TokenTable, plan: Plan, max_seq_length: int) -> list[Problem]:
    """Warnings that need the batches: rows and texts that are not used whole, and durations longer than the run."""
    epoch = plan.epoch_batches(0)
    problems = cut_texts(table.lengths(), max_seq_length)
    if left_out := unused(epoch, len(table)):
        message = f"{left_out} of {len(table)} examples fit into no batch and are not trained on"
        problems.append(Problem(message, "unused-rows"))
    calendar = build_calendar(recipe.train, plan.total_steps)
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
    if recipe.train.accumulate_steps > len(epoch):
        message = f"train.accumulate_steps: an epoch has only {len(epoch)} batches"
        problems.append(Problem(message, "longer-than-run"))
    return problems


def forecast(recipe: Recipe, table: TokenTable, plan: Plan, base: Glance, max_seq_length: int) -> dict[str, Any]:
    """`steps`, `tokens` (of the whole run), `lengths` (quantiles, in tokens) and `memory_mib`, None where unknown."""
    lengths = table.lengths().clip(max=max_seq_length)
    tokens_of_row = np.sum([np.where(ids == MISSING, 0, lengths[ids]) for ids in table.text_ids.values()], axis=0)
    tokens_of_batch = [int(tokens_of_row[rows].sum()) for rows in plan.epoch_batches(0)]
    epochs = plan.total_steps / plan.steps_per_epoch
    return {
        "steps": plan.total_steps,
        "tokens": round(sum(tokens_of_batch) * epochs),
        "lengths": quantiles(table.lengths()),
        "max_seq_length": max_seq_length,
        "memory_mib": memory(recipe, base, max(tokens_of_batch)),
    }


def memory(recipe: Recipe, base: Glance, tokens: int) -> int | None:
    """MiB that training needs at its largest batch, of `tokens` tokens, as far as a rule of thumb can tell."""
    if base.parameters is None or base.hidden_size is None or base.num_layers is None:
        return None
    train = recipe.train
    share = min(1.0, train.mini_batch_size / train.batch_size) if train.mini_batch_size else 1.0
    at_once = min(tokens * share, train.mini_batch_tokens or tokens)
    kept = base.num_layers * at_once * base.hidden_size * KEPT_PER_TOKEN * BYTES_PER_ACTIVATION
    return LIBRARIES_MIB + round((base.parameters * BYTES_PER_WEIGHT + kept) / 2**20)
