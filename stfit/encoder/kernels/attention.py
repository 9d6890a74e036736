"""Attention within sequences that lie end to end, sorted by length.

One call per distinct length works on a plain [sequences, heads, length, dim] slice, so no mask is needed. transformers
calls `packed_attention` through its attention interface; `packing.py` registers and probes it.

Tensor names: t = tokens, h = heads, d = dim of a head, n = sequences of one length l, p = rows with heads first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stfit.encoder.kernels.dropout import dropout_mask, kept_scale

HAS_VARLEN = find_spec("torch.nn.attention.varlen") is not None  # newer than the oldest supported torch


class Packing:
    """The lengths of the sequences of a packed row, in ascending order, and what attention derives from them."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths
        self._blocks: dict[int, BlockLayout] = {}

    @cached_property
    def groups(self) -> list[tuple[int, int]]:
        """Count and length of each group of adjacent sequences of one length."""
        distinct, counts = np.unique(self.lengths, return_counts=True)
        return list(zip(counts.tolist(), distinct.tolist(), strict=True))

    def blocks(self, heads: int) -> BlockLayout:
        if heads not in self._blocks:
            self._blocks[heads] = BlockLayout(self.lengths, heads)
        return self._blocks[heads]


@dataclass(frozen=True)
class Block:
    """Sequences padded to one length, heads first: the rows of [p, d] from `start` are matrices [n * h, l, d]."""

    count: int
    heads: int
    length: int
    start: int
    padding: Tensor | None
    """[n, 1, 1, l], the lowest number for the padding of shorter sequences; None if there is none."""

    @property
    def scores(self) -> int:
        return self.count * self.heads * self.length**2

    def view(self, states_pd: Tensor) -> Tensor:
        rows = self.count * self.heads * self.length
        return states_pd[self.start : self.start + rows].view(-1, self.length, states_pd.shape[1])

    def by_head(self, values: Tensor) -> Tensor:
        """[n * h, ...] -> a view [n, h, ...]."""
        return values.view(self.count, self.heads, *values.shape[1:])


class BlockLayout:
    """Index maps between packed tokens and the heads-first layout, whose lengths are rounded up."""

    def __init__(self, lengths: np.ndarray, heads: int) -> None:
        starts = np.cumsum(lengths) - lengths
        step = np.where(lengths <= 64, 4, 16)  # few blocks, little padding
        rounded = (lengths + step - 1) // step * step
        head = np.arange(heads)
        from_tokens, to_tokens, padding_rows = [], [], []
        self.heads = heads
        self.blocks: list[Block] = []
        start = 0
        for length in np.unique(rounded):
            members = np.flatnonzero(rounded == length)
            position = np.arange(length)
            real_nl = position < lengths[members, None]
            token_nl = starts[members, None] + np.minimum(position, lengths[members, None] - 1)
            row_nhl = start + np.arange(len(members) * heads * length).reshape(len(members), heads, length)
            from_tokens.append((token_nl[:, None, :] * heads + head[None, :, None]).reshape(-1))
            to_tokens.append(row_nhl.transpose(0, 2, 1)[real_nl].reshape(-1))
            padding_rows.append(row_nhl.transpose(0, 2, 1)[~real_nl].reshape(-1))
            # Not -inf: a row of padding whose window holds padding alone would be NaN, and so would all gradients.
            lowest = np.where(real_nl, np.float32(0), np.finfo(np.float32).min)
            padding = None if real_nl.all() else torch.from_numpy(lowest)[:, None, None]
            self.blocks.append(Block(len(members), heads, int(length), start, padding))
            start += row_nhl.size
        self._from_tokens = torch.from_numpy(np.concatenate(from_tokens))
        self._to_tokens = torch.from_numpy(np.concatenate(to_tokens))
        self.padding_rows = torch.from_numpy(np.concatenate(padding_rows))
        """Padding rows, which repeat a sequence's last token; their gradients must be zeroed."""

    def heads_first(self, states: Tensor, parts: int = 1) -> Tensor:
        """[t, parts * h * d], of any shape -> [parts * p, d], one part after another."""
        index = self._from_tokens
        if parts > 1:
            token, head = index // self.heads, index % self.heads
            index = torch.cat([(token * parts + part) * self.heads + head for part in range(parts)])
        return states.reshape(len(states) * parts * self.heads, -1).index_select(0, index)

    def tokens_first(self, states_pd: Tensor, parts: int = 1) -> Tensor:
        """[parts * p, d] -> [t, parts * h * d]."""
        rows = len(states_pd) // parts
        index = self._to_tokens.view(-1, 1, self.heads) + rows * torch.arange(parts)[:, None]
        return states_pd.index_select(0, index.view(-1)).view(len(index), -1)


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
    plain = not causal and sliding_window is None and key.shape[1] == query.shape[1]
    if dropout > 0 and plain and query.device.type == "cpu":
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        attended_thd: Tensor = AttentionWithDropout.apply(*rows_thd, packing, scale, dropout)  # type: ignore[no-untyped-call]
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
    mask = None
    if window is not None:
        position = torch.arange(length, device=q.device)
        steps = position[:, None] - position
        mask = (steps >= 0) & (steps < window) if causal else steps.abs() < window
    attended = functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=causal and mask is None and length > 1,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=k.shape[1] != q.shape[1],
    )
    return attended.transpose(1, 2).reshape(count * length, *q.shape[1::2])


class Distances(NamedTuple):
    """Queries and keys that stand for the distances 1 - m to m - 1 of two tokens, both [h, 2 m - 1, d].

    He et al., 2021, "Disentangled attention", https://arxiv.org/abs/2006.03654.
    """

    queries: Tensor
    keys: Tensor

    def up_to(self, length: int) -> Distances:
        """A view of the distances within sequences of this length."""
        middle = self.queries.shape[1] // 2
        return Distances(*(table[:, middle - length + 1 : middle + length] for table in self))


def _by_distance(values: Tensor) -> Tensor:
    """A view [..., l, l] of [..., l, 2 l - 1]: place (i, j) is column j - i + l - 1 of row i."""
    *_, length, columns = values.shape
    shape = (*values.shape[:-1], length)
    return values.as_strided(shape, (*values.stride()[:-2], columns - 1, 1), length - 1)


def distance_scores(query: Tensor, key: Tensor, distances: Distances) -> Tensor:
    """Query i times the key of the distance i - j, and key j times its query: [n, h, l, l] of two [n, h, l, d]."""
    queries, keys = distances.up_to(query.shape[2])
    of_queries = _by_distance(query @ keys.flip(1).transpose(1, 2))
    of_keys = _by_distance(key @ queries.transpose(1, 2))
    return of_queries + of_keys.transpose(2, 3)


@dataclass
class Relations:
    """What the positions of two tokens add to their scores, and the gradients of it."""

    bias_hll: Tensor | None = None
    """Added after scaling, for the positions up to the length of a sequence."""
    distances: Distances | None = None
    """Their scores are added before scaling."""
    bias_grad_hll: Tensor | None = None
    distances_grad: Distances | None = None

    def add_scores(self, scores: Tensor, q: Tensor, k: Tensor, block: Block, scale: float) -> None:
        """Scale `scores` [n * h, l, l] in place, and add what belongs to them."""
        if self.distances:
            block.by_head(scores).add_(distance_scores(block.by_head(q), block.by_head(k), self.distances))
        scores.mul_(scale)
        if self.bias_hll is not None:
            block.by_head(scores).add_(self.bias_hll[:, : block.length, : block.length])
        if block.padding is not None:
            block.by_head(scores).add_(block.padding)

    def start_backward(self) -> None:
        if self.bias_hll is not None and self.bias_hll.requires_grad:
            self.bias_grad_hll = torch.zeros_like(self.bias_hll)
        if self.distances:
            self.distances_grad = Distances(*map(torch.zeros_like, self.distances))

    def add_bias_grad(self, scores_grad: Tensor, block: Block) -> None:
        if self.bias_grad_hll is not None:
            self.bias_grad_hll[:, : block.length, : block.length] += block.by_head(scores_grad).sum(0)

    def add_distance_grads(
        self, scores_grad: Tensor, block: Block, q: Tensor, k: Tensor, q_grad: Tensor, k_grad: Tensor
    ) -> None:
        """Add to the gradients of query and key, and of the distances. `scores_grad`: before scaling."""
        if self.distances is None or self.distances_grad is None:
            return
        queries, keys = self.distances.up_to(block.length)
        queries_grad, keys_grad = self.distances_grad.up_to(block.length)
        gradient = block.by_head(scores_grad)
        columns = gradient.new_zeros(*gradient.shape[:-1], 2 * block.length - 1)
        _by_distance(columns).copy_(gradient)
        block.by_head(q_grad).add_(columns @ keys.flip(1))
        keys_grad += (columns.transpose(2, 3) @ block.by_head(q)).sum(0).flip(1)
        _by_distance(columns).copy_(gradient.transpose(2, 3))
        block.by_head(k_grad).add_(columns @ queries)
        queries_grad += (columns.transpose(2, 3) @ block.by_head(k)).sum(0)


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
        scores = torch.bmm(q, k.transpose(1, 2))
        relations.add_scores(scores, q, k, block, scale)
        weights = scores.softmax(-1)
        torch.bmm(weights if mask is None else weights * mask.view_as(weights), v, out=block.view(output_pd))
        all_weights.append(weights)
    if rate:
        output_pd.mul_(kept_scale(rate))
    return output_pd, (all_weights, masks, scale, rate, relations)


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
    for block, weights, flat_mask in zip(blocks.blocks, all_weights, masks, strict=True):
        q, k, v = (block.view(states_pd) for states_pd in qkv_pd.chunk(3))
        q_grad, k_grad, v_grad = (block.view(states_pd) for states_pd in qkv_grad_pd.chunk(3))
        gradient = block.view(gradient_pd)
        mask = None if flat_mask is None else flat_mask.view_as(weights)
        torch.bmm((weights if mask is None else weights * mask).transpose(1, 2), gradient, out=v_grad)
        weights_grad = torch.bmm(gradient, v.transpose(1, 2))
        if mask is not None:
            weights_grad.mul_(mask)
        scores_grad = torch._softmax_backward_data(weights_grad, weights, -1, weights.dtype)
        relations.add_bias_grad(scores_grad, block)
        scores_grad.mul_(scale)
        torch.bmm(scores_grad, k, out=q_grad)
        torch.bmm(scores_grad.transpose(1, 2), q, out=k_grad)
        relations.add_distance_grads(scores_grad, block, q, k, q_grad, k_grad)
    return qkv_grad_pd


class AttentionWithDropout(torch.autograd.Function):
    """Attention with dropout on its weights, differentiated by hand.

    With dropout, torch's CPU kernels draw from a serial generator and record about fifteen graph nodes for every length
    in the batch. Here lengths are rounded up to a few, all masks are drawn at once, and one gather moves heads first.
    """

    @staticmethod
    def forward(
        ctx: Any, query_thd: Tensor, key_thd: Tensor, value_thd: Tensor, packing: Packing, scale: float, rate: float
    ) -> Tensor:
        ctx.blocks = packing.blocks(query_thd.shape[1])
        ctx.qkv_pd = torch.cat([ctx.blocks.heads_first(states) for states in (query_thd, key_thd, value_thd)])
        output_pd, ctx.saved = attend_blocks(ctx.qkv_pd, ctx.blocks, scale, rate)
        return ctx.blocks.tokens_first(output_pd).view_as(query_thd)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_thd: Tensor) -> tuple[Tensor | None, ...]:
        qkv_grad_pd = attend_backward(ctx.blocks.heads_first(gradient_thd), ctx.qkv_pd, ctx.blocks, *ctx.saved)
        return *(ctx.blocks.tokens_first(part).view_as(gradient_thd) for part in qkv_grad_pd.chunk(3)), None, None, None
