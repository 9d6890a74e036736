"""The training loop: batches in, one StepInfo a step out. It knows nothing of logs, evaluators or files."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stfit.data.batching.batches import Batch
from stfit.distributed import all_reduce_grads, is_rank_zero, translate_dist_errors, world_size
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.validate import name_some, not_finite
from stfit.errors import DataError, DivergedError, InterruptedRun, RecipeError
from stfit.runtime.timer import Timer
from stfit.training.fsdp import clip_grad_norm, shard, summon_full_params
from stfit.training.gradients import BatchResult, ComputeLoss, Splitter, backward, trained_weights
from stfit.training.param_groups import build_param_groups
from stfit.training.rng import capture_rng, restore_rng


@dataclass(frozen=True)
class StepInfo:
    """What one optimizer step did. `step` counts finished steps: 1 after the first."""

    step: int
    loss: float
    """Mean over the batches of the step."""
    objectives: list[int]
    """Which objective each of the batches is of."""
    learning_rate: float
    grad_norm: float
    spread: float
    """Largest difference between two embeddings in one dimension, over the largest number: 0 if all are the same."""
    rows: int
    tokens: int
    seconds: float
    spent: dict[str, float]
    """The seconds by what they went into: data, forward, backward, optimizer."""


@dataclass(frozen=True)
class TrainObjects:
    """Everything that a step changes."""

    encoder: Encoder
    losses: list[ComputeLoss]
    """One for each objective."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    unsharded: Encoder | None = None
    """Where the encoder's weights are cut up among the processes: what can be lent all of them."""

    @property
    def modules(self) -> list[nn.Module]:
        """The modules whose weights are trained: the encoder, and the losses that have weights."""
        return trainable_modules(self.encoder, self.losses)

    @contextmanager
    def full_encoder(self) -> Iterator[Encoder]:
        """The encoder with all of its weights, to measure and to save; all processes go through the block at once."""
        if self.unsharded is None:
            yield self.encoder
        else:
            with summon_full_params(self.unsharded, self.encoder) as encoder:
                yield encoder


def trainable_modules(encoder: Encoder, losses: list[ComputeLoss]) -> list[nn.Module]:
    """The encoder, and the losses that have weights."""
    return [encoder, *(loss for loss in losses if isinstance(loss, nn.Module))]


def build_train_objects(
    encoder: Encoder,
    losses: list[ComputeLoss],
    weight_decay: float,
    frozen: list[str],
    layer_decay: float | None = None,
    sharded: bool = False,
) -> TrainObjects:
    """AdamW over the weights whose names match no pattern in `frozen`; biases and norms (vectors) do not decay.

    `sharded`: of several processes, each keeps a part of the encoder only. Raises RecipeError for a pattern that
    matches nothing, or when nothing is left to train.
    """
    _freeze(encoder, frozen)
    unsharded = shard(encoder) if sharded and world_size() > 1 else None
    weights = trained_weights(*trainable_modules(encoder, losses))
    groups = build_param_groups(weights, weight_decay, layer_decay, encoder.source.num_layers)
    device = encoder.device.type
    optimizer = torch.optim.AdamW(groups, fused=device in ("cpu", "cuda"))
    scaler = torch.amp.GradScaler(device, enabled=encoder.precision == "float16")
    return TrainObjects(encoder, losses, optimizer, scaler, unsharded)


def _freeze(encoder: Encoder, patterns: list[str]) -> None:
    """Leave the encoder's weights that match a pattern as they are."""
    names = [name for name, _ in encoder.named_parameters()]
    for pattern in patterns:
        matched = set(fnmatch.filter(names, pattern))
        if not matched:
            raise RecipeError(f"train.freeze: `{pattern}` matches no weight; names look like {', '.join(names[:3])}")
        for name, weight in encoder.named_parameters():
            if name in matched:
                weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in encoder.parameters()):
        raise RecipeError("train.freeze: leaves no weight of the encoder to train")


def train_steps(
    learner: TrainObjects,
    steps: Iterable[list[tuple[int, Batch]]],
    learning_rate_at: Callable[[int], float],
    *,
    first_step: int,
    split: Splitter,
    max_grad_norm: float | None,
    check_interrupt: Callable[[], None] = lambda: None,
) -> Iterator[StepInfo]:
    """Run the optimizer steps from the 0-based `first_step` on, each on its batches (several = accumulated).

    A batch comes with the number of its objective, whose loss it is given to. `check_interrupt` is called before each
    mini-batch; where it raises InterruptedRun, or a loss DataError, everything but the gradients is as before the step.

    Raises DivergedError before the optimizer moves when an embedding, the loss or the gradient is not finite.
    """
    weights = [weight for _, weight in trained_weights(*learner.modules)]
    learner.encoder.train()
    watch = Timer()
    for step, group in enumerate(steps, start=first_step):
        watch.lap("data")
        objectives, batches = [objective for objective, _ in group], [batch for _, batch in group]
        share = 1 / len(group)

        def scale(loss: Tensor, share: float = share) -> Tensor:
            return learner.scaler.scale(loss * share)

        before = capture_rng()
        try:
            with translate_dist_errors(at_work=True):
                outcomes = [
                    backward(learner.encoder, learner.losses[which], batch, split, scale, watch, check_interrupt)
                    for which, batch in group
                ]
        except (InterruptedRun, DataError):
            restore_rng(before)
            raise
        _add_up_gradients(learner)
        loss = torch.stack([outcome.loss for outcome in outcomes]).mean().item()
        learner.scaler.unscale_(learner.optimizer)
        grad_norm = clip_grad_norm(weights, max_grad_norm or float("inf")).item()
        _require_finite(step + 1, outcomes, loss, 0.0 if learner.scaler.is_enabled() else grad_norm, batches)
        rate = learning_rate_at(step)
        for parameters in learner.optimizer.param_groups:
            parameters["lr"] = rate * parameters["lr_scale"]
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()
        learner.optimizer.zero_grad(set_to_none=True)
        watch.lap("optimizer")
        yield StepInfo(
            step + 1,
            loss,
            objectives,
            rate,
            grad_norm,
            max(outcome.spread.item() for outcome in outcomes),
            sum(len(batch.rows) for batch in batches),
            sum(batch.tokens for batch in batches),
            sum(watch.seconds.values()),
            dict(watch.seconds),
        )
        learner.encoder.train()  # an evaluation in between may have left it in evaluation mode
        watch = Timer()


def _add_up_gradients(learner: TrainObjects) -> None:
    """Put together what the processes have: of the encoder, its share each; of the losses, all the same.

    What is cut up among the processes was put together in the backward pass.
    """
    if not is_rank_zero():
        for _, weight in trained_weights(*learner.modules[1:]):
            if weight.grad is not None:
                weight.grad.zero_()
    all_reduce_grads([weight for _, weight in trained_weights(*learner.modules[learner.unsharded is not None :])])


def _require_finite(
    step: int, outcomes: list[BatchResult], loss: float, grad_norm: float, batches: list[Batch]
) -> None:
    """Stop before a NaN reaches the weights. `grad_norm`: 0 under float16 scaling, which only skips such a step."""
    for batch, outcome in zip(batches, outcomes, strict=True):
        broken = np.flatnonzero(~outcome.finite_s.cpu().numpy())
        if len(broken):
            raise _diverged(f"embeddings are not finite in step {step}", [(batch, batch.rows_with(broken))])
    for name, value in (("the loss", loss), ("the gradient norm", grad_norm)):
        if not math.isfinite(value):
            raise _diverged(f"{name} is {value} in step {step}", [(batch, batch.rows) for batch in batches])


def _diverged(what: str, rows: list[tuple[Batch, np.ndarray]]) -> DivergedError:
    """The error that names the rows of these batches, and their texts."""
    named = "; ".join(batch.examples.describe(chosen) for batch, chosen in rows)
    return DivergedError(
        f"{what}, in {named}. The last checkpoint is kept. Lower train.learning_rate, or look at these rows"
    )


def require_finite_weights(*modules: nn.Module) -> None:
    """Stop before weights that are not finite are kept: the last step of a run is followed by none that would notice.

    Raises DivergedError with their names.
    """
    broken = [name for module in modules for name in not_finite(module.state_dict().items())]
    if broken:
        raise DivergedError(
            f"weights are not finite: {name_some(broken)}. The last checkpoint is kept. Lower train.learning_rate"
        )
