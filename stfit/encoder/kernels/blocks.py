"""The sequences of a packed row as blocks: those of similar length, with heads before tokens.

Tensor names: t = tokens, h = heads, d = dim of a head, n = sequences of one length l, p = rows with heads first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


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
