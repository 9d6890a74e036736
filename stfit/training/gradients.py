"""From a batch to gradients: in one piece, or in mini-batches with the same result.

Gradient caching (Gao et al., 2021, https://arxiv.org/abs/2101.06983): embed mini-batch by mini-batch without a graph,
take the loss's gradient with respect to the embeddings, then embed each mini-batch again, with the same dropout, and
push its part of that gradient through. Memory is that of one mini-batch; since a loss only sees embeddings, it works
for every loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stfit.data.batches import Batch
from stfit.encoder.encoder import Encoder
from stfit.training.randomness import capture_randomness, restore_randomness
from stfit.training.stopwatch import Stopwatch

ComputeLoss = Callable[[dict[str, Tensor], Tensor | None], Tensor]
Cut = Callable[[Batch], list[slice]]
"""Batch -> which of its sequences are embedded together."""


class Outcome(NamedTuple):
    """What a batch came to."""

    loss: Tensor
    finite_s: Tensor
    """Whether each sequence has a finite embedding."""
    spread: Tensor
    """Largest difference between two embeddings in one dimension, over the largest number: 0 if all are the same."""


def no_cut(batch: Batch) -> list[slice]:
    """Everything at once."""
    return [slice(0, len(batch.sequences))]


def cut_rows(rows: int) -> Cut:
    """So many sequences at once as `rows` rows hold."""

    def cut(batch: Batch) -> list[slice]:
        size = rows * len(batch.columns)
        return [slice(start, start + size) for start in range(0, len(batch.sequences), size)]

    return cut


def cut_tokens(tokens: int) -> Cut:
    """At most `tokens` tokens at once, but at least one sequence."""

    def cut(batch: Batch) -> list[slice]:
        slices, start, total = [], 0, 0
        for end, sequence in enumerate(batch.sequences):
            if end > start and total + len(sequence) > tokens:
                slices.append(slice(start, end))
                start, total = end, 0
            total += len(sequence)
        return [*slices, slice(start, len(batch.sequences))]

    return cut


def choose_cut(mini_batch_size: int | None, mini_batch_tokens: int | None) -> Cut:
    """How a recipe cuts its batches."""
    if mini_batch_size is not None:
        return cut_rows(mini_batch_size)
    return no_cut if mini_batch_tokens is None else cut_tokens(mini_batch_tokens)


def embed(encoder: Encoder, batch: Batch, part: slice) -> Tensor:
    """Embeddings of some of a batch's sequences."""
    skips = None if batch.prompt_lengths is None else batch.prompt_lengths[part]
    embedding_sd: Tensor = encoder(batch.sequences[part], skips)
    return embedding_sd


def compute_batch_loss(embedding_sd: Tensor, batch: Batch, loss: ComputeLoss) -> Tensor:
    """The loss of a batch whose sequences have these embeddings."""
    with_zero_sd = functional.pad(embedding_sd, (0, 0, 0, 1))  # index -1, a missing text, is the row of zeros
    device = embedding_sd.device
    columns = {role: with_zero_sd[torch.from_numpy(index).to(device)] for role, index in batch.columns.items()}
    label = None if batch.label is None else torch.from_numpy(np.asarray(batch.label)).to(device)
    return loss(columns, label)


def add_gradients(
    encoder: Encoder,
    loss: ComputeLoss,
    batch: Batch,
    cut: Cut,
    scale: Callable[[Tensor], Tensor],
    watch: Stopwatch,
    between: Callable[[], None] = lambda: None,
) -> Outcome:
    """Add the gradients of `scale(loss)` to every weight.

    `scale` stands for what multiplies the loss before the backward pass: the share of a batch in an accumulated step,
    and the loss scaling of float16. `watch` is told of the forward and the backward pass; to embed again is part of
    the latter. `between` is called before each mini-batch.
    """
    parts = cut(batch)
    if len(parts) == 1:
        embedding_sd = embed(encoder, batch, parts[0])
        value = compute_batch_loss(embedding_sd, batch, loss)
        watch.lap("forward")
        scale(value).backward()
        watch.lap("backward")
        return outcome_of(value, embedding_sd)
    before = []
    embeddings = []
    with torch.no_grad():
        for part in parts:
            between()
            before.append(capture_randomness())
            embeddings.append(embed(encoder, batch, part))
    leaf_sd = torch.cat(embeddings).requires_grad_()
    value = compute_batch_loss(leaf_sd, batch, loss)
    watch.lap("forward")
    scale(value).backward()
    assert leaf_sd.grad is not None
    for part, randomness in zip(parts, before, strict=True):
        between()
        restore_randomness(randomness)
        embed(encoder, batch, part).backward(leaf_sd.grad[part])
    watch.lap("backward")
    return outcome_of(value, leaf_sd)


def outcome_of(loss: Tensor, embedding_sd: Tensor) -> Outcome:
    """The loss of a batch with these embeddings, and whether they are good for anything."""
    embedding_sd = embedding_sd.detach()
    width = (embedding_sd.amax(0) - embedding_sd.amin(0)).max()
    largest = embedding_sd.abs().max().clamp(min=torch.finfo(embedding_sd.dtype).tiny)
    return Outcome(loss.detach(), embedding_sd.isfinite().all(dim=1), width / largest)


def trained_weights(*modules: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Weights of the modules that training moves, by name."""
    for module in modules:
        yield from ((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)
