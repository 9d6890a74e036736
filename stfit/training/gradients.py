"""From a batch to gradients: in one pass, or in mini-batches with the same result.

Gradient caching (Gao et al., 2021, https://arxiv.org/abs/2101.06983): embed each mini-batch without a graph, compute
the gradient of the loss with respect to the embeddings, then embed each mini-batch again with the same dropout and
backpropagate its slice of that gradient. Needs the memory of one mini-batch, and works with every loss, because a loss
only sees embeddings.

Shape suffixes: s = distinct sequences of the batch, d = embedding dim.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stfit.data.batching.batches import Batch
from stfit.distributed import all_gather_rows, all_reduce_max, partition, rank
from stfit.encoder.encoder import Encoder
from stfit.errors import RecipeError
from stfit.losses.base import upcast
from stfit.losses.terms import LossTerms
from stfit.runtime.timer import Timer
from stfit.training.fsdp import is_sharded
from stfit.training.rng import capture_rng, restore_rng

Splitter = Callable[[Batch, np.ndarray], list[np.ndarray]]
"""Batch, indices of the sequences that this rank embeds -> those indices as mini-batches."""


class BatchResult(NamedTuple):
    terms: Tensor
    """The losses of the batch with their weights; their sum is minimized."""
    finite_s: Tensor
    spread: Tensor
    """Largest difference between two embeddings in one dimension, relative to the largest value; 0 if all are equal."""


def build_splitter(rows: int | None = None, tokens: int | None = None) -> Splitter:
    """Mini-batches of as many sequences as `rows` rows have, or of one sequence or at most `tokens` tokens."""

    def split(batch: Batch, sequences: np.ndarray) -> list[np.ndarray]:
        max_sequences = math.inf if rows is None else rows * len(batch.columns)
        max_tokens = math.inf if tokens is None else tokens
        starts, start, total = [], 0, 0
        for end, sequence in enumerate(sequences.tolist()):
            length = len(batch.sequences[sequence])
            if end > start and (end - start == max_sequences or total + length > max_tokens):
                starts.append(end)
                start, total = end, 0
            total += length
        return np.split(sequences, starts)

    return split


def embed(encoder: Encoder, batch: Batch, sequences: np.ndarray) -> Tensor:
    """Embeddings of some of a batch's sequences, at least float32 [len(sequences), dim]."""
    count = len(sequences)
    if is_sharded(encoder) and not any(len(batch.sequences[sequence]) for sequence in sequences):
        longest = np.argmax([len(sequence) for sequence in batch.sequences])  # the other ranks wait for a forward
        sequences = np.append(sequences, longest)
    prompt_lengths = None if batch.prompt_lengths is None else batch.prompt_lengths[sequences]
    return upcast(encoder([batch.sequences[sequence] for sequence in sequences], prompt_lengths))[:count]


def compute_loss_terms(embedding_sd: Tensor, batch: Batch, loss: LossTerms) -> Tensor:
    with_zero_sd = functional.pad(embedding_sd, (0, 0, 0, 1))  # a missing text has index -1: the zero row
    device = embedding_sd.device
    columns = {role: with_zero_sd[torch.from_numpy(index).to(device)] for role, index in batch.columns.items()}
    labels = tuple(None if label is None else _to_device(label, embedding_sd) for label in batch.labels)
    return loss(columns, labels, zlib.crc32(batch.rows.tobytes()))


def _to_device(label: np.ndarray, like: Tensor) -> Tensor:
    """Scores in the losses' own type: Metal has no float64."""
    tensor = torch.from_numpy(np.asarray(label))
    return tensor.to(like.dtype if tensor.is_floating_point() else tensor.dtype).to(like.device)


def backward(
    encoder: Encoder,
    loss: LossTerms,
    batch: Batch,
    split: Splitter,
    scale: Callable[[Tensor], Tensor],
    timer: Timer,
    check_interrupt: Callable[[], None] = lambda: None,
) -> BatchResult:
    """Add the gradients of `scale(loss)` to every weight.

    Each rank embeds a share of the texts, and all ranks compute the loss of the whole batch: the encoder's weights get
    the gradient of the share, the weights of the loss that of the batch.

    `scale` multiplies the loss before the backward pass (accumulation, float16 loss scaling). `timer` counts the second
    forward pass of gradient caching as backward. `check_interrupt` is called before each mini-batch and may raise.
    """
    shares = partition([len(sequence) for sequence in batch.sequences])
    parts = split(batch, shares[rank()])
    if is_sharded(encoder):  # every rank must call the encoder equally often
        parts += [parts[0][:0]] * (all_reduce_max(len(parts)) - len(parts))
    cached = len(parts) > 1
    if cached:
        rng_states, embeddings = [], []
        with torch.no_grad():
            for part in parts:
                check_interrupt()
                rng_states.append(capture_rng())
                embeddings.append(embed(encoder, batch, part))
        embedding_sd = all_gather_rows(torch.cat(embeddings), shares).requires_grad_()
    else:
        embedding_sd = all_gather_rows(embed(encoder, batch, parts[0]), shares)
    terms = compute_loss_terms(embedding_sd, batch, loss)
    timer.lap("forward")
    _backward(scale(terms.sum()))
    if cached:
        assert embedding_sd.grad is not None
        for part, rng_state in zip(parts, rng_states, strict=True):
            check_interrupt()
            restore_rng(rng_state)
            _backward(embed(encoder, batch, part), embedding_sd.grad[part])
    timer.lap("backward")
    embedding_sd = embedding_sd.detach()
    range_d = embedding_sd.amax(0) - embedding_sd.amin(0)
    largest = embedding_sd.abs().max().clamp(min=torch.finfo(embedding_sd.dtype).tiny)
    return BatchResult(terms.detach(), embedding_sd.isfinite().all(dim=1), range_d.max() / largest)


def _backward(output: Tensor, gradient: Tensor | None = None) -> None:
    if not output.requires_grad:
        raise RecipeError(
            "no weight that is trained has an effect on the embeddings: change model.lora.target or train.freeze"
        )
    output.backward(gradient)


def trained_weights(*modules: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for module in modules:
        yield from ((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)
