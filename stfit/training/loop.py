"""The training loop: batches in, one StepInfo per step out. It knows nothing of logs, evaluators or files."""

import fnmatch
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from stfit.data.batching.batches import Batch
from stfit.distributed import all_reduce_grads, is_rank_zero, translate_dist_errors, world_size
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.files import name_some, not_finite
from stfit.errors import DataError, DivergedError, InterruptedRun, RecipeError, overflow_advice
from stfit.events import StepInfo
from stfit.losses.softmax_classifier import NamedHead
from stfit.losses.terms import LossTerms
from stfit.runtime.timer import Timer
from stfit.training.adamw import AdamW
from stfit.training.fsdp import shard, summon_full_params, total_grad_norm
from stfit.training.gradients import BatchResult, Splitter, backward, trained_weights
from stfit.training.param_groups import build_param_groups
from stfit.training.rng import capture_rng, restore_rng
from stfit.training.sparse_tables import use_sparse_gradients


@dataclass(frozen=True)
class TrainObjects:
    encoder: Encoder
    losses: list[LossTerms]
    optimizer: AdamW
    scaler: torch.amp.GradScaler
    unsharded: Encoder | None = None
    """A copy to gather the weights into, if the encoder is sharded."""

    @property
    def modules(self) -> list[nn.Module]:
        return trainable_modules(self.encoder, self.losses)

    @property
    def head(self) -> NamedHead | None:
        """The classifier of the first softmax loss; None without one."""
        return next((terms.head for terms in self.losses if terms.head), None)

    def full_encoder(self) -> AbstractContextManager[Encoder]:
        """The encoder with all of its weights, to measure or save it. A collective operation."""
        return nullcontext(self.encoder) if self.unsharded is None else summon_full_params(self.unsharded, self.encoder)


def trainable_modules(encoder: Encoder, losses: list[LossTerms]) -> list[nn.Module]:
    return [encoder, *losses]


def build_train_objects(
    encoder: Encoder,
    losses: list[LossTerms],
    weight_decay: float,
    frozen: list[str],
    layer_decay: float | None = None,
    sharded: bool = False,
) -> TrainObjects:
    """AdamW over all weights that match no pattern in `frozen`. Raises RecipeError for a pattern that matches none."""
    _freeze(encoder, frozen)
    unsharded = shard(encoder) if sharded and world_size() > 1 else None
    use_sparse_gradients(encoder)
    weights = trained_weights(*trainable_modules(encoder, losses))
    groups = build_param_groups(weights, weight_decay, layer_decay, encoder.base.num_layers)
    scaler = torch.amp.GradScaler(encoder.device.type, enabled=encoder.precision == "float16")
    return TrainObjects(encoder, losses, AdamW(groups), scaler, unsharded)


def _freeze(encoder: Encoder, patterns: list[str]) -> None:
    names = [name for name, _ in encoder.named_parameters()]
    for pattern in patterns:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            raise RecipeError(f"train.freeze: `{pattern}` matches no weight; names look like {', '.join(names[:3])}")
        for name in matches:
            encoder.get_parameter(name).requires_grad_(False)
    if not any(weight.requires_grad for weight in encoder.parameters()):
        raise RecipeError("train.freeze: freezes all weights of the encoder; remove a pattern")


def train_steps(
    objects: TrainObjects,
    steps: Iterable[list[tuple[int, Batch]]],
    learning_rate_at: Callable[[int], float],
    *,
    first_step: int,
    split: Splitter,
    max_grad_norm: float | None,
    check_interrupt: Callable[[], None] = lambda: None,
) -> Iterator[StepInfo]:
    """Run optimizer steps from the 0-based `first_step` on. A step is a list of batches, whose gradients accumulate.

    Each batch comes with the index of its objective. `check_interrupt` is called before each mini-batch. If it raises
    InterruptedRun, or a loss raises DataError, everything except the gradients is as it was before the step.

    Raises DivergedError before the optimizer changes a weight if an embedding, the loss or the gradient is not finite.
    """
    weights = [weight for _, weight in trained_weights(*objects.modules)]
    objects.encoder.train()
    timer = Timer()
    for step, group in enumerate(steps, start=first_step):
        timer.lap("data")
        batches = [batch for _, batch in group]
        results = _accumulate_gradients(objects, group, split, timer, check_interrupt)
        _reduce_gradients(objects)
        loss = torch.stack([result.terms.sum() for result in results]).mean().item()
        objects.scaler.unscale_(cast("Any", objects.optimizer))
        norm = total_grad_norm(weights)
        grad_norm = norm.item()
        advice = overflow_advice(objects.encoder.precision)
        _require_finite(step + 1, results, loss, 0.0 if objects.scaler.is_enabled() else grad_norm, batches, advice)
        learning_rate = learning_rate_at(step)
        divisor = None if max_grad_norm is None else (norm.float() / max_grad_norm).clamp(min=1)
        _optimizer_step(objects, learning_rate, divisor)
        timer.lap("optimizer")
        yield StepInfo(
            step=step + 1,
            loss=loss,
            objectives=[objective for objective, _ in group],
            terms=_mean_terms(objects, group, results),
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            spread=max(result.spread.item() for result in results),
            rows=sum(len(batch.rows) for batch in batches),
            tokens=sum(batch.tokens for batch in batches),
            seconds=sum(timer.seconds.values()),
            spent=dict(timer.seconds),
        )
        objects.encoder.train()  # the caller may have evaluated
        timer = Timer()


def _accumulate_gradients(
    objects: TrainObjects,
    group: list[tuple[int, Batch]],
    split: Splitter,
    timer: Timer,
    check_interrupt: Callable[[], None],
) -> list[BatchResult]:
    """Add up the gradients of the mean loss of a step's batches; restores the random state if it is interrupted."""

    def scale(loss: Tensor) -> Tensor:
        return objects.scaler.scale(loss * (1 / len(group)))

    rng_state = capture_rng()
    try:
        with translate_dist_errors(mixed=True):
            return [
                backward(objects.encoder, objects.losses[index], batch, split, scale, timer, check_interrupt)
                for index, batch in group
            ]
    except (InterruptedRun, DataError):
        restore_rng(rng_state)
        raise


def _mean_terms(objects: TrainObjects, group: list[tuple[int, Batch]], results: list[BatchResult]) -> dict[str, float]:
    """Name -> mean over the batches of a step that have this term; empty if every loss has only one."""
    values: dict[str, list[float]] = {}
    for (index, _), result in zip(group, results, strict=True):
        if len(result.terms) > 1:
            for name, value in zip(objects.losses[index].names, result.terms.tolist(), strict=True):
                values.setdefault(name, []).append(value)
    return {name: sum(numbers) / len(numbers) for name, numbers in values.items()}


def _reduce_gradients(objects: TrainObjects) -> None:
    """Sum the gradients over all ranks. Those of a sharded encoder were summed in the backward pass.

    Every rank holds the gradients of its share for the encoder, but those of the whole batch for the losses: of these,
    only rank 0's count.
    """
    if not is_rank_zero():
        for _, weight in trained_weights(*objects.modules[1:]):
            if weight.grad is not None:
                weight.grad.zero_()
    all_reduce_grads([weight for _, weight in trained_weights(*objects.modules[objects.unsharded is not None :])])


def _optimizer_step(objects: TrainObjects, learning_rate: float, divisor: Tensor | None) -> None:
    """Update the weights; gradients are divided by `divisor`."""
    for group in objects.optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]
    objects.scaler.step(cast("Any", objects.optimizer), divisor)
    objects.scaler.update()
    objects.optimizer.zero_grad()


def _require_finite(
    step: int, results: list[BatchResult], loss: float, grad_norm: float, batches: list[Batch], advice: str
) -> None:
    """Raise DivergedError before a NaN reaches the weights. `grad_norm` is 0 if the scaler skips overflows."""
    for batch, result in zip(batches, results, strict=True):
        broken = np.flatnonzero(~result.finite_s.cpu().numpy())
        if len(broken):
            raise _diverged(f"embeddings are not finite in step {step}", [(batch, batch.rows_with(broken))], advice)
    for name, value in (("the loss", loss), ("the gradient norm", grad_norm)):
        if not math.isfinite(value):
            raise _diverged(f"{name} is {value} in step {step}", [(batch, batch.rows) for batch in batches], advice)


def _diverged(problem: str, rows: list[tuple[Batch, np.ndarray]], advice: str) -> DivergedError:
    texts = "; ".join(batch.examples.describe(indices) for batch, indices in rows)
    return DivergedError(f"{problem}, in {texts}. The last checkpoint is kept. {advice}, or check these rows")


def require_finite_weights(*modules: nn.Module) -> None:
    """Raise DivergedError if a weight is not finite. No step follows the last one that would notice."""
    broken = [name for module in modules for name in not_finite(module.state_dict().items())]
    if broken:
        raise DivergedError(
            f"weights are not finite: {name_some(broken)}. The last checkpoint is kept. Lower train.learning_rate"
        )
