"""Attention within sequences that lie end to end, sorted by length.

One call per distinct length works on a plain [sequences, heads, length, dim] slice, so no mask is needed. transformers
calls `packed_attention` through its attention interface; `layout.py` registers and probes it.

Tensor names: t = tokens, h = heads, d = dim of a head, n = sequences of one length, l = that length, b = n * h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stfit.encoder.dropout import keep_mask


@dataclass(frozen=True)
class Group:
    """`count` sequences of one length, next to each other in the packed row."""

    count: int
    length: int


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    groups: tuple[Group, ...] = (),
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **_: Any,  # transformers hands over whatever a model adds; the probe shows whether ignoring it is right
) -> tuple[Tensor, None]:
    """Attention within each sequence. query: [1, heads, tokens, dim]; key and value may have fewer heads."""
    vars(module)["packed_calls"] = vars(module).get("packed_calls", 0) + 1
    causal = bool(getattr(module, "is_causal", False)) if is_causal is None else is_causal
    rows_thd = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    plain = not causal and sliding_window is None and key.shape[1] == query.shape[1]
    if dropout > 0 and plain and query.device.type == "cpu":
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        attended_thd: Tensor = AttentionWithDropout.apply(*rows_thd, groups, scale, dropout)  # type: ignore[no-untyped-call]
        return attended_thd[None], None
    sizes = [group.count * group.length for group in groups]
    # One `split` gives one `cat` in the backward pass; a slice per group would give a full-size zero gradient each.
    parts = zip(groups, *(tensor.split(sizes) for tensor in rows_thd), strict=True)
    outputs = [
        attend(group, *states, scaling=scaling, dropout=dropout, causal=causal, window=sliding_window)
        for group, *states in parts
    ]
    return torch.cat(outputs)[None], None


def attend(
    group: Group, *states_thd: Tensor, scaling: float | None, dropout: float, causal: bool, window: int | None
) -> Tensor:
    """Attention of one group by torch's own kernels, [tokens of the group, heads, dim]."""
    q, k, v = (state.reshape(group.count, group.length, *state.shape[1:]).transpose(1, 2) for state in states_thd)
    mask = None if window is None else window_mask(group.length, window, causal, q.device)
    attended = functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=causal and mask is None and group.length > 1,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=k.shape[1] != q.shape[1],
    )
    return attended.transpose(1, 2).reshape(group.count * group.length, *q.shape[1::2])


def window_mask(length: int, window: int, causal: bool, device: torch.device) -> Tensor:
    """[length, length], true where a query may see a key: less than `window` steps away, and behind it when causal."""
    position = torch.arange(length, device=device)
    steps = position[:, None] - position
    return (steps >= 0) & (steps < window) if causal else steps.abs() < window


def heads_first(states_thd: Tensor, group: Group, start: int) -> Tensor:
    """A group's part of a packed tensor as a batch of matrices [n * h, l, d]."""
    heads, dim = states_thd.shape[1:]
    part = states_thd[start : start + group.count * group.length].view(group.count, group.length, heads, dim)
    return part.transpose(1, 2).reshape(group.count * heads, group.length, dim)


def put_back(target_thd: Tensor, batch_bld: Tensor, group: Group, start: int) -> None:
    """Write what `heads_first` took, or its gradient, to its place in a packed tensor."""
    heads, dim = target_thd.shape[1:]
    part = target_thd[start : start + group.count * group.length].view(group.count, group.length, heads, dim)
    part.transpose(1, 2).copy_(batch_bld.view(group.count, heads, group.length, dim))


class AttentionWithDropout(torch.autograd.Function):
    """Attention with dropout on its weights, differentiated by hand.

    With dropout, torch's CPU kernels draw from a serial generator and leave a graph of some fifteen nodes for every
    length in the batch; here a length costs a few calls, and the masks of all lengths are drawn at once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_thd: Tensor,
        key_thd: Tensor,
        value_thd: Tensor,
        groups: tuple[Group, ...],
        scale: float,
        rate: float,
    ) -> Tensor:
        """softmax(scale * query key^T), dropped out, times value; [t, h, d]."""
        heads = query_thd.shape[1]
        sizes = [group.count * heads * group.length**2 for group in groups]
        masks = keep_mask(query_thd, sum(sizes), rate).split(sizes)
        output_thd = torch.empty(query_thd.shape, dtype=query_thd.dtype)
        saved = []
        start = 0
        for group, mask in zip(groups, masks, strict=True):
            q, k, v = (heads_first(states, group, start) for states in (query_thd, key_thd, value_thd))
            weights = torch.bmm(q, k.transpose(1, 2)).mul_(scale).softmax(-1)
            mask = mask.view_as(weights)
            put_back(output_thd, torch.bmm(weights * mask, v), group, start)
            saved.append((q, k, v, weights, mask))
            start += group.count * group.length
        ctx.groups, ctx.scale, ctx.saved = groups, scale, saved
        return output_thd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_thd: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        results = [torch.empty(gradient_thd.shape, dtype=gradient_thd.dtype) for _ in range(3)]
        start = 0
        for group, (q, k, v, weights, mask) in zip(ctx.groups, ctx.saved, strict=True):
            gradient = heads_first(gradient_thd, group, start)
            of_value = torch.bmm((weights * mask).transpose(1, 2), gradient)
            of_weights = torch.bmm(gradient, v.transpose(1, 2)).mul_(mask)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scale)
            of_query, of_key = torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q)
            for target, value in zip(results, (of_query, of_key, of_value), strict=True):
                put_back(target, value, group, start)
            start += group.count * group.length
        return (*results, None, None, None)
