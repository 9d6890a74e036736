"""Token embeddings -> one embedding per sequence, over sequences laid end to end.

No mode knows of padding: whatever laid the tokens out (layout.py) has already left it behind.
Tensor names: t = tokens of all sequences, r = sequences, d = dim of a token embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from stfit.plugins import installed_entry_points, load_entry_point


@dataclass(frozen=True)
class TokenStates:
    """Token embeddings of sequences end to end: sequence i owns `lengths_r[i]` tokens from `starts_r[i]` on.

    A length of 0 is an error of the caller.
    """

    states_td: Tensor
    lengths_r: Tensor
    ids_t: Tensor
    """What the tokens are."""
    mass_r: Tensor | None = None
    """Sum of the weights of each sequence's tokens, where they were weighted: what a mean divides by."""

    @classmethod
    def of(cls, states_td: Tensor, sequences: list[np.ndarray]) -> TokenStates:
        """From the states and the token ids of sequences in the same order."""
        lengths_r = torch.tensor([len(sequence) for sequence in sequences], device=states_td.device)
        ids_t = torch.from_numpy(np.concatenate(sequences)).to(states_td.device)
        return cls(states_td, lengths_r, ids_t)

    @cached_property
    def starts_r(self) -> Tensor:
        """Where each sequence starts."""
        return self.lengths_r.cumsum(0) - self.lengths_r

    @cached_property
    def owner_t(self) -> Tensor:
        """Which sequence each token is of."""
        return torch.arange(len(self.lengths_r), device=self.lengths_r.device).repeat_interleave(self.lengths_r)

    @cached_property
    def position_t(self) -> Tensor:
        """Place of each token in its sequence, 0 for the first."""
        return torch.arange(len(self.owner_t), device=self.owner_t.device) - self.starts_r[self.owner_t]

    def total(self, values_td: Tensor) -> Tensor:
        """Sum over each sequence, in float32 also for half-precision values."""
        wide_td = values_td.float() if values_td.dtype in (torch.float16, torch.bfloat16) else values_td
        return wide_td.new_zeros(len(self.lengths_r), values_td.shape[1]).index_add(0, self.owner_t, wide_td)

    def mass_or(self, plain_r: Tensor) -> Tensor:
        """[sequences, 1] to divide a sum by: `plain_r`, or the tokens' weights where they have some."""
        return (plain_r if self.mass_r is None else self.mass_r.clamp(min=1e-9))[:, None]


def _pool_mean(tokens: TokenStates) -> Tensor:
    """Average of the token embeddings."""
    return tokens.total(tokens.states_td) / tokens.mass_or(tokens.lengths_r)


def _pool_mean_sqrt_len(tokens: TokenStates) -> Tensor:
    """Sum of the token embeddings over the square root of their number."""
    return tokens.total(tokens.states_td) / tokens.mass_or(tokens.lengths_r).sqrt()


def _pool_weighted_mean(tokens: TokenStates) -> Tensor:
    """Average weighted by position, 1 for the first token (SGPT, https://arxiv.org/abs/2202.08904)."""
    wide = torch.float64 if tokens.states_td.dtype == torch.float64 else torch.float32
    weight_t = (tokens.position_t + 1).to(wide)
    weight_sum_r = tokens.lengths_r * (tokens.lengths_r + 1) / 2
    return tokens.total(tokens.states_td * weight_t[:, None]) / tokens.mass_or(weight_sum_r)


def _pool_max(tokens: TokenStates) -> Tensor:
    """Largest value of each dimension."""
    return torch.segment_reduce(tokens.states_td, "max", lengths=tokens.lengths_r)


def _pool_cls(tokens: TokenStates) -> Tensor:
    """The first token's embedding."""
    return tokens.states_td[tokens.starts_r]


def _pool_last_token(tokens: TokenStates) -> Tensor:
    """The last token's embedding."""
    return tokens.states_td[tokens.starts_r + tokens.lengths_r - 1]


POOLINGS: dict[str, Callable[[TokenStates], Tensor]] = {
    "mean": _pool_mean,
    "cls": _pool_cls,
    "max": _pool_max,
    "mean_sqrt_len": _pool_mean_sqrt_len,
    "weighted_mean": _pool_weighted_mean,
    "last_token": _pool_last_token,
}


def pooling_of(mode: str) -> Callable[[TokenStates], Tensor]:
    """The function of a mode, of an installed package where it is none of stfit's."""
    if mode in POOLINGS:
        return POOLINGS[mode]
    function: Callable[[TokenStates], Tensor] = load_entry_point(installed_entry_points("pooling")[mode])
    return function


def compute_pooled(modes: tuple[str, ...], tokens: TokenStates) -> Tensor:
    """[sequences, len(modes) * dim]: the modes side by side, in their order."""
    return torch.cat([pooling_of(mode)(tokens).to(tokens.states_td.dtype) for mode in modes], dim=1)


def without_prompts(tokens: TokenStates, prompts_r: Tensor) -> TokenStates:
    """The sequences without the first `prompts_r[i]` tokens of each (at least one token is kept)."""
    skip_r = prompts_r.minimum(tokens.lengths_r - 1)
    kept_t = tokens.position_t >= skip_r[tokens.owner_t]
    return replace(
        tokens, states_td=tokens.states_td[kept_t], ids_t=tokens.ids_t[kept_t], lengths_r=tokens.lengths_r - skip_r
    )
