"""Dropout that costs little on a CPU.

torch draws CPU dropout masks from a serial generator, some five times slower than what is needed. Here 16 random bits
per number come from numpy's SFC64 generator and are compared as integers. Its state is part of every checkpoint.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

DROPOUT_SETTING = re.compile(r"dropout|_pdrop$")
"""Names of dropout rates in the configs of transformers."""


class DropoutGenerator:
    """The generator behind every dropout mask of the process."""

    def __init__(self) -> None:
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Start anew."""
        self._generator = np.random.Generator(np.random.SFC64(seed))

    def draw(self, count: int) -> Tensor:
        """`count` uniform 16-bit integers in [-32768, 32767]."""
        words = self._generator.integers(0, 2**64, (count + 3) // 4, dtype=np.uint64)
        return torch.from_numpy(words.view(np.int16)[:count])

    def state(self) -> Tensor:
        """Four words of the generator, as bytes."""
        state = self._generator.bit_generator.state["state"]["state"]
        return torch.from_numpy(state.view(np.uint8).copy())

    def restore(self, state: Tensor) -> None:
        """Put the generator where `state` was taken."""
        full = self._generator.bit_generator.state
        full["state"]["state"] = state.numpy().copy().view(np.uint64)
        self._generator.bit_generator.state = full


dropout_bits = DropoutGenerator()


def dropout_mask(count: int, rate: float) -> Tensor:
    """`count` truth values: false with probability `rate` (to 1/65536)."""
    return dropout_bits.draw(count) >= round(rate * 65536) - 32768


def kept_scale(rate: float) -> float:
    """What keeps the mean where `dropout_mask` drops: 1 / (1 - rate)."""
    return 65536 / (65536 - round(rate * 65536))


def keep_mask(like: Tensor, count: int, rate: float) -> Tensor:
    """`count` numbers of the type of `like`: 0 with probability `rate`, else 1 / (1 - rate)."""
    return dropout_mask(count, rate).to(like.dtype).mul_(kept_scale(rate))


class FastDropout(nn.Module):
    """nn.Dropout with masks from `dropout_bits` on a CPU; torch's own elsewhere."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.p = rate  # transformers reads `.p` of its attention dropout

    def forward(self, states: Tensor) -> Tensor:
        """Same shape."""
        if not self.training or self.p == 0:
            return states
        if states.device.type != "cpu":
            return functional.dropout(states, self.p)
        return states * keep_mask(states, states.numel(), self.p).view_as(states)


def use_fast_dropout(model: nn.Module) -> None:
    """Replace every nn.Dropout inside `model`."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, FastDropout(child.p))
