"""Attention within sequences that lie end to end, sorted by length.

One call per distinct length works on a plain [sequences, heads, length, dim] slice, so no mask is needed. transformers
calls `packed_attention` through its attention interface; `packing.py` registers and probes it.

Tensor names: t = tokens, h = heads, d = dim of a head, n = sequences of one length l, p = rows with heads first.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stfit.encoder.kernels.blocks import BlockLayout, Packing
from stfit.encoder.kernels.dropout import dropout_mask, kept_scale
from stfit.encoder.kernels.relations import Relations, sum_dtype

BLOCK_LENGTH = 256
"""Length of the longest sequence up to which training without dropout computes attention in blocks."""

HAS_VARLEN = find_spec("torch.nn.attention.varlen") is not None  # newer than the oldest supported torch


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **_: Any,  # models add arguments of their own; the probe shows whether they can be ignored
) -> tuple[Tensor, None]:
    """Attention within each sequence. query: [1, heads, tokens, dim]; key and value may have fewer heads."""
    if packing is None:
        raise TypeError("this model does not pass `packing` on to its attention")  # the probe catches it
    vars(module)["packed_calls"] = vars(module).get("packed_calls", 0) + 1
    causal = bool(getattr(module, "is_causal", False)) if is_causal is None else is_causal
    rows_thd = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    if query.device.type == "cpu" and query.requires_grad and (dropout > 0 or packing.lengths[-1] <= BLOCK_LENGTH):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        mask = _mask(packing.blocks(query.shape[1]).blocks[-1].length, causal, sliding_window)
        query_thd, *others = rows_thd
        repeats = query.shape[1] // key.shape[1]  # one key for several queries
        states_thd = [
            query_thd,
            *(states.repeat_interleave(repeats, 1) if repeats > 1 else states for states in others),
        ]
        attended_thd: Tensor = BlockAttention.apply(*states_thd, mask, packing, scale, dropout)  # type: ignore[no-untyped-call]
        return attended_thd[None], None
    half = query.dtype in (torch.float16, torch.bfloat16)
    if query.device.type == "cuda" and half and dropout == 0 and HAS_VARLEN:
        return attend_varlen(rows_thd, packing, scaling, causal, sliding_window)[None], None
    sizes = [count * length for count, length in packing.groups]
    # One `split` becomes one `cat` in the backward pass; each slice would allocate a full-size zero gradient.
    parts = zip(packing.groups, *(tensor.split(sizes) for tensor in rows_thd), strict=True)
    outputs = [
        _attend(group, *states, scaling=scaling, dropout=dropout, causal=causal, window=sliding_window)
        for group, *states in parts
    ]
    return torch.cat(outputs)[None], None


def attend_varlen(
    rows_thd: list[Tensor], packing: Packing, scaling: float | None, causal: bool, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # imports torch's compiler

    query_thd, key_thd, value_thd = rows_thd
    ends = torch.from_numpy(np.concatenate([[0], np.cumsum(packing.lengths)])).to(query_thd.device, torch.int32)
    longest = int(packing.lengths.max())
    reach = -1 if window is None else window - 1
    attended_thd = varlen_attn(
        query_thd,
        key_thd,
        value_thd,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(reach, 0 if causal else reach),
        enable_gqa=key_thd.shape[1] != query_thd.shape[1],
    )
    assert isinstance(attended_thd, Tensor)  # a pair only with return_aux
    return attended_thd


def _attend(
    group: tuple[int, int], *states_thd: Tensor, scaling: float | None, dropout: float, causal: bool, window: int | None
) -> Tensor:
    """Attention of one group by torch's own kernels: [tokens of the group, heads, dim]."""
    count, length = group
    q, k, v = (state.reshape(count, length, *state.shape[1:]).transpose(1, 2) for state in states_thd)
    mask = None if window is None else _mask(length, causal, window, q.device)
    attended = functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=None if mask is None else mask.to(q.dtype),
        is_causal=causal and mask is None and length > 1,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=k.shape[1] != q.shape[1],
    )
    return attended.transpose(1, 2).reshape(count * length, *q.shape[1::2])


def _mask(length: int, causal: bool, window: int | None, device: torch.device | None = None) -> Tensor | None:
    """[1, l, l]: 0 where a token attends to another, else -inf; None if all attend to all."""
    reach = length if window is None else window
    if not causal and length <= reach:
        return None
    position = torch.arange(length, device=device)
    steps = position[:, None] - position
    is_seen = (steps >= 0) & (steps < reach) if causal else steps.abs() < reach
    return torch.zeros(1, length, length, device=device).masked_fill(~is_seen, -torch.inf)


def attend_blocks(
    qkv_pd: Tensor, blocks: BlockLayout, scale: float, rate: float, relations: Relations | None = None
) -> tuple[Tensor, tuple[Any, ...]]:
    """dropout(softmax(scores)) value of `qkv_pd`, and the last arguments of `attend_backward`.

    Scores are scale * query key^T, and what `relations` adds.
    """
    relations = relations or Relations()
    q_pd, k_pd, v_pd = qkv_pd.chunk(3)
    output_pd = torch.empty_like(q_pd)
    sizes = [block.scores for block in blocks.blocks]
    masks = dropout_mask(sum(sizes), rate).split(sizes) if rate else [None] * len(sizes)
    all_weights = []
    for block, mask in zip(blocks.blocks, masks, strict=True):
        q, k, v = (block.view(states_pd) for states_pd in (q_pd, k_pd, v_pd))
        scores = torch.bmm(q, k.transpose(1, 2)).to(sum_dtype(q.dtype))
        relations.add_scores(scores, q, k, block, scale)
        weights = scores.softmax(-1).to(q.dtype)
        torch.bmm(_kept(weights, mask), v, out=block.view(output_pd))
        all_weights.append(weights)
    if rate:
        output_pd.mul_(kept_scale(rate))
    return output_pd, (all_weights, masks, scale, rate, relations)


def _kept(weights: Tensor, mask: Tensor | None) -> Tensor:
    return weights if mask is None else weights * mask.view_as(weights).to(weights.dtype)


def attend_backward(
    gradient_pd: Tensor,
    qkv_pd: Tensor,
    blocks: BlockLayout,
    all_weights: list[Tensor],
    masks: Sequence[Tensor | None],
    scale: float,
    rate: float,
    relations: Relations,
) -> Tensor:
    """Gradients of query, key and value, as the thirds of one tensor like `qkv_pd`; weights are [n * h, l, l].

    Those of the relations are left in `relations`.
    """
    relations.start_backward()
    qkv_grad_pd = torch.empty_like(qkv_pd)
    gradient_pd[blocks.padding_rows] = 0
    if rate:
        gradient_pd.mul_(kept_scale(rate))
    for block, weights, mask in zip(blocks.blocks, all_weights, masks, strict=True):
        q, k, v = (block.view(states_pd) for states_pd in qkv_pd.chunk(3))
        q_grad, k_grad, v_grad = (block.view(states_pd) for states_pd in qkv_grad_pd.chunk(3))
        gradient = block.view(gradient_pd)
        torch.bmm(_kept(weights, mask).transpose(1, 2), gradient, out=v_grad)
        weights_grad = _kept(torch.bmm(gradient, v.transpose(1, 2)), mask)
        scores_grad = torch._softmax_backward_data(weights_grad, weights, -1, weights.dtype)
        relations.add_bias_grad(scores_grad, block)
        scores_grad.mul_(scale)
        torch.bmm(scores_grad, k, out=q_grad)
        torch.bmm(scores_grad.transpose(1, 2), q, out=k_grad)
        relations.add_distance_grads(scores_grad, block, q, k, q_grad, k_grad)
    return qkv_grad_pd


class BlockAttention(torch.autograd.Function):
    """Attention in blocks of similar length, differentiated by hand.

    torch's own kernels record about fifteen graph nodes for every length in the batch, are slow for short sequences,
    and draw dropout from a serial generator. Here lengths are rounded up to a few, all masks are drawn at once, and one
    gather moves heads first. The weights of attention are kept, so that long sequences take more memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_thd: Tensor,
        key_thd: Tensor,
        value_thd: Tensor,
        mask: Tensor | None,
        packing: Packing,
        scale: float,
        rate: float,
    ) -> Tensor:
        ctx.blocks = packing.blocks(query_thd.shape[1])
        ctx.qkv_pd = torch.cat([ctx.blocks.heads_first(states) for states in (query_thd, key_thd, value_thd)])
        output_pd, ctx.saved = attend_blocks(ctx.qkv_pd, ctx.blocks, scale, rate, Relations(mask))
        return ctx.blocks.tokens_first(output_pd).view_as(query_thd)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_thd: Tensor) -> tuple[Tensor | None, ...]:
        qkv_grad_pd = attend_backward(ctx.blocks.heads_first(gradient_thd), ctx.qkv_pd, ctx.blocks, *ctx.saved)
        grads = (ctx.blocks.tokens_first(part).view_as(gradient_thd) for part in qkv_grad_pd.chunk(3))
        return *grads, None, None, None, None
