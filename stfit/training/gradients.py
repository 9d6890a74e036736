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

from stfit.data.batching.batches import Batch
from stfit.distributed import all_gather_rows, all_reduce_max, partition, rank
from stfit.encoder.encoder import Encoder
from stfit.losses.base import upcast
from stfit.runtime.timer import Timer
from stfit.training.fsdp import is_sharded
from stfit.training.rng import capture_rng, restore_rng

ComputeLoss = Callable[[dict[str, Tensor], Tensor | None], Tensor]
Splitter = Callable[[Batch, np.ndarray], list[np.ndarray]]
"""Batch, and those of its sequences that this process embeds -> which of them are embedded together."""


class BatchResult(NamedTuple):
    """What a batch came to."""

    loss: Tensor
    finite_s: Tensor
    """Whether each sequence has a finite embedding."""
    spread: Tensor
    """Largest difference between two embeddings in one dimension, over the largest number: 0 if all are the same."""


def no_split(batch: Batch, mine: np.ndarray) -> list[np.ndarray]:
    """Everything at once."""
    return [mine]


def split_rows(rows: int) -> Splitter:
    """So many sequences at once as `rows` rows hold."""

    def split(batch: Batch, mine: np.ndarray) -> list[np.ndarray]:
        size = rows * len(batch.columns)
        return np.split(mine, range(size, len(mine), size))

    return split


def split_tokens(tokens: int) -> Splitter:
    """At most `tokens` tokens at once, but at least one sequence."""

    def split(batch: Batch, mine: np.ndarray) -> list[np.ndarray]:
        starts, start, total = [], 0, 0
        for end, sequence in enumerate(mine.tolist()):
            length = len(batch.sequences[sequence])
            if end > start and total + length > tokens:
                starts.append(end)
                start, total = end, 0
            total += length
        return np.split(mine, starts)

    return split


def choose_splitter(mini_batch_size: int | None, mini_batch_tokens: int | None) -> Splitter:
    """How a recipe cuts its batches."""
    if mini_batch_size is not None:
        return split_rows(mini_batch_size)
    return no_split if mini_batch_tokens is None else split_tokens(mini_batch_tokens)


def embed(encoder: Encoder, batch: Batch, part: np.ndarray) -> Tensor:
    """Embeddings of some of a batch's sequences, never in half precision."""
    if is_sharded(encoder) and not any(len(batch.sequences[sequence]) for sequence in part):
        longest = np.argmax([len(sequence) for sequence in batch.sequences])
        return _embed_all(encoder, batch, np.append(part, longest))[: len(part)]  # the others wait for a call
    return _embed_all(encoder, batch, part)


def _embed_all(encoder: Encoder, batch: Batch, part: np.ndarray) -> Tensor:
    """The same by one call of the encoder."""
    skips = None if batch.prompt_lengths is None else batch.prompt_lengths[part]
    return upcast(encoder([batch.sequences[sequence] for sequence in part], skips))


def compute_batch_loss(embedding_sd: Tensor, batch: Batch, loss: ComputeLoss) -> Tensor:
    """The loss of a batch whose sequences have these embeddings."""
    with_zero_sd = functional.pad(embedding_sd, (0, 0, 0, 1))  # index -1, a missing text, is the row of zeros
    device = embedding_sd.device
    columns = {role: with_zero_sd[torch.from_numpy(index).to(device)] for role, index in batch.columns.items()}
    label = None if batch.label is None else torch.from_numpy(np.asarray(batch.label)).to(device)
    return loss(columns, label)


def backward(
    encoder: Encoder,
    loss: ComputeLoss,
    batch: Batch,
    split: Splitter,
    scale: Callable[[Tensor], Tensor],
    watch: Timer,
    check_interrupt: Callable[[], None] = lambda: None,
) -> BatchResult:
    """Add the gradients of `scale(loss)` to every weight.

    Of several processes each embeds a share of the texts, and all compute the loss of the whole batch: a weight of the
    encoder gets the gradient of the share, a weight of the loss that of the batch.

    `scale` stands for what multiplies the loss before the backward pass: the share of a batch in an accumulated step,
    and the loss scaling of float16. `watch` is told of the forward and the backward pass; to embed again is part of
    the latter. `check_interrupt` is called before each mini-batch.
    """
    shares = partition([len(sequence) for sequence in batch.sequences])
    parts = split(batch, shares[rank()])
    if is_sharded(encoder):
        parts += [parts[0][:0]] * (all_reduce_max(len(parts)) - len(parts))
    if len(parts) == 1:
        embedding_sd = all_gather_rows(embed(encoder, batch, parts[0]), shares)
        value = compute_batch_loss(embedding_sd, batch, loss)
        watch.lap("forward")
        scale(value).backward()
        watch.lap("backward")
        return _batch_result(value, embedding_sd)
    before = []
    embeddings = []
    with torch.no_grad():
        for part in parts:
            check_interrupt()
            before.append(capture_rng())
            embeddings.append(embed(encoder, batch, part))
    leaf_sd = all_gather_rows(torch.cat(embeddings), shares).requires_grad_()
    value = compute_batch_loss(leaf_sd, batch, loss)
    watch.lap("forward")
    scale(value).backward()
    assert leaf_sd.grad is not None
    for part, randomness in zip(parts, before, strict=True):
        check_interrupt()
        restore_rng(randomness)
        embed(encoder, batch, part).backward(leaf_sd.grad[part])
    watch.lap("backward")
    return _batch_result(value, leaf_sd)


def _batch_result(loss: Tensor, embedding_sd: Tensor) -> BatchResult:
    """The loss of a batch with these embeddings, and whether they are good for anything."""
    embedding_sd = embedding_sd.detach()
    width = (embedding_sd.amax(0) - embedding_sd.amin(0)).max()
    largest = embedding_sd.abs().max().clamp(min=torch.finfo(embedding_sd.dtype).tiny)
    return BatchResult(loss.detach(), embedding_sd.isfinite().all(dim=1), width / largest)


def trained_weights(*modules: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Weights of the modules that training moves, by name."""
    for module in modules:
        yield from ((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)
