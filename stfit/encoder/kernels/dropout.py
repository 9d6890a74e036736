"""Fast dropout masks on a CPU.

torch draws CPU dropout masks from a serial generator, about five times slower than necessary. Here 16 random bits per
number come from numpy's SFC64 generator and are compared as integers. Its state is part of every checkpoint.
"""

import re

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

DROPOUT_SETTING = re.compile(r"dropout|_pdrop$")


class DropoutGenerator:
    def __init__(self) -> None:
        self.seed(0)

    def seed(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.SFC64(seed))

    def draw(self, count: int) -> np.ndarray:
        """`count` uniform 16-bit integers in [-32768, 32767]."""
        words = self._generator.integers(0, 2**64, (count + 3) // 4, dtype=np.uint64)
        return words.view(np.int16)[:count]

    def state(self) -> Tensor:
        state = self._generator.bit_generator.state["state"]["state"]
        return torch.from_numpy(state.view(np.uint8).copy())

    def restore(self, state: Tensor) -> None:
        full = self._generator.bit_generator.state
        full["state"]["state"] = state.numpy().copy().view(np.uint64)
        self._generator.bit_generator.state = full


dropout_bits = DropoutGenerator()


def dropout_mask(count: int, rate: float) -> Tensor:
    """`count` bytes, 0 with probability `rate` (rounded to 1/65536), else 1.

    numpy compares, and the result is no boolean, because torch is ten times slower with these.
    """
    kept = dropout_bits.draw(count) >= round(rate * 65536) - 32768
    return torch.from_numpy(kept.view(np.uint8))


def kept_scale(rate: float) -> float:
    """Factor that preserves the mean under `dropout_mask`: 1 / (1 - rate)."""
    return 65536 / (65536 - round(rate * 65536))


def keep_mask(like: Tensor, count: int, rate: float) -> Tensor:
    """`count` numbers of the dtype of `like`: 0 with probability `rate`, else 1 / (1 - rate)."""
    return dropout_mask(count, rate).to(like.dtype).mul_(kept_scale(rate))


class FastDropout(nn.Module):
    """nn.Dropout with masks from `dropout_bits` on a CPU, and torch's own masks on other devices."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.p = rate  # transformers reads `.p` of its attention dropout

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return states
        if states.device.type != "cpu":
            return functional.dropout(states, self.p)
        return states * keep_mask(states, states.numel(), self.p).view_as(states)


def use_fast_dropout(model: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, FastDropout(child.p))
