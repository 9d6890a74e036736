"""Attention within packed sequences is what torch computes for each sequence alone."""

import inspect
import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from stfit.encoder.kernels import attention
from stfit.encoder.kernels.attention import BlockAttention, attend_varlen, packed_attention
from stfit.encoder.kernels.blocks import Packing
from stfit.encoder.kernels.dropout import dropout_bits, keep_mask

LENGTHS = [1, 1, 4, 4, 4, 7, 70]
TOKENS = sum(LENGTHS)
HEADS, DIM = 3, 5


def states(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(TOKENS, HEADS, DIM, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3)
    ]


def reference(query, key, value, scale, masks):
    """Each sequence by itself, each head by itself; `masks` yields one [heads, length, length] per sequence."""
    outputs, start = [], 0
    for length, mask in zip(LENGTHS, masks, strict=True):
        part = slice(start, start + length)
        scores = torch.einsum("qhd,khd->hqk", query[part], key[part]) * scale
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1) * mask, value[part]))
        start += length
    return torch.cat(outputs)


def masks_as_drawn(rate: float):
    """The masks of the generator's next draws, cut as the blocks cut them."""
    blocks = Packing(np.array(LENGTHS)).blocks(HEADS)
    flat = keep_mask(torch.empty(0, dtype=torch.float64), sum(block.scores for block in blocks.blocks), rate)
    rows = [
        mask
        for block, part in zip(blocks.blocks, flat.split([block.scores for block in blocks.blocks]), strict=True)
        for mask in part.view(block.count, HEADS, block.length, block.length)
    ]
    return [mask[:, :length, :length] for mask, length in zip(rows, LENGTHS, strict=True)]


def test_attention_with_dropout_equals_its_formula_with_the_same_mask() -> None:
    ours, theirs = states(), states()
    dropout_bits.seed(3)
    output = BlockAttention.apply(*ours, None, Packing(np.array(LENGTHS)), 0.4, 0.25)
    dropout_bits.seed(3)
    expected = reference(*theirs, 0.4, masks_as_drawn(0.25))
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_windows_and_causality_hold_within_each_sequence(causal, window) -> None:
    query, key, value = states()
    module = torch.nn.Module()
    packed = [tensor.transpose(0, 1)[None] for tensor in (query, key, value)]
    output, _ = packed_attention(
        *[module, *packed], None, packing=Packing(np.array(LENGTHS)), is_causal=causal, sliding_window=window
    )
    start = 0
    for length in LENGTHS:
        position = torch.arange(length)
        steps = position[:, None] - position
        allowed = (steps >= 0 if causal else steps == steps) & (steps.abs() < (window or 99))
        part = slice(start, start + length)
        alone = functional.scaled_dot_product_attention(
            *(tensor[part].transpose(0, 1) for tensor in (query, key, value)), attn_mask=allowed
        )
        torch.testing.assert_close(output[0, part], alone.transpose(0, 1), rtol=1e-10, atol=1e-12)
        start += length


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_blocks_give_the_gradients_of_torchs_own_kernels(causal, window, monkeypatch) -> None:
    """With one head of key and value for all of the query's."""
    gradients = []
    for longest in (0, max(LENGTHS)):
        monkeypatch.setattr(attention, "BLOCK_LENGTH", longest)
        query, key, value = (tensor.detach().requires_grad_() for tensor in states())
        shared_heads = [query, key[:, :1], value[:, :1]]
        output, _ = packed_attention(
            torch.nn.Module(),
            *(tensor.transpose(0, 1)[None] for tensor in shared_heads),
            None,
            packing=Packing(np.array(LENGTHS)),
            is_causal=causal,
            sliding_window=window,
        )
        (output * torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)).sum().backward()
        gradients.append((output.detach(), query.grad, key.grad, value.grad))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def documented_varlen(query, key, value, ends, _, longest, __, *, scale, window_size, enable_gqa):
    """What torch documents of its kernel, which runs on GPUs only: windows reach (left, right), -1 is no limit."""
    assert longest == max(LENGTHS)
    outputs = []
    for start, end in itertools.pairwise(ends):
        position = torch.arange(end - start)
        steps = position[:, None] - position
        left, right = (99 if reach < 0 else reach for reach in window_size)
        q, k, v = (tensor[start:end].transpose(0, 1) for tensor in (query, key, value))
        allowed = (steps <= left) & (-steps <= right)
        attended = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, scale=scale, enable_gqa=enable_gqa
        )
        outputs.append(attended.transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_for_gpus_is_asked_for_the_same_attention(causal, window, monkeypatch) -> None:
    packing = Packing(np.array(LENGTHS))
    query, key, value = states()
    shared_heads = [query, key[:, :1], value[:, :1]]
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", documented_varlen)
    output = attend_varlen(shared_heads, packing, 0.4, causal, window)
    expected, _ = packed_attention(
        torch.nn.Module(),
        *(tensor.transpose(0, 1)[None] for tensor in shared_heads),
        None,
        scaling=0.4,
        packing=packing,
        is_causal=causal,
        sliding_window=window,
    )
    torch.testing.assert_close(output[None], expected, rtol=1e-10, atol=1e-12)


def test_the_kernel_for_gpus_takes_what_it_is_given() -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    known = list(inspect.signature(varlen.varlen_attn).parameters)
    assert known[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert {"scale", "window_size", "enable_gqa"} <= set(known[7:])


def test_dropout_keeps_the_expectation_and_its_rate() -> None:
    dropout_bits.seed(0)
    mask = keep_mask(torch.empty(0), 200_000, 0.1)
    assert abs((mask == 0).double().mean().item() - 0.1) < 0.003
    assert abs(mask.double().mean().item() - 1) < 0.003


def test_dropout_state_brings_back_the_same_masks() -> None:
    dropout_bits.seed(5)
    keep_mask(torch.empty(0), 7, 0.5)
    state = dropout_bits.state()
    first = keep_mask(torch.empty(0), 100, 0.5)
    dropout_bits.restore(state)
    assert torch.equal(first, keep_mask(torch.empty(0), 100, 0.5))
