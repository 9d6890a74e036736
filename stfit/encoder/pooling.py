"""Token embeddings -> one embedding per sequence, over sequences laid end to end.

No mode knows of padding: whatever laid the tokens out (layout.py) has already left it behind.
Tensor names: t = tokens of all sequences, r = sequences, d = dim of a token embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stfit.installed import installed, load_installed


@dataclass(frozen=True)
class Spans:
    """Where each sequence lies: sequence i owns the tokens `starts_r[i] ... starts_r[i] + lengths_r[i] - 1`."""

    lengths_r: Tensor
    starts_r: Tensor
    owner_t: Tensor

    @classmethod
    def of(cls, lengths_r: Tensor) -> Spans:
        """From the lengths of sequences laid end to end; a length of 0 is an error of the caller."""
        starts_r = lengths_r.cumsum(0) - lengths_r
        owner_t = torch.arange(len(lengths_r), device=lengths_r.device).repeat_interleave(lengths_r)
        return cls(lengths_r, starts_r, owner_t)

    def total(self, states_td: Tensor) -> Tensor:
        """Sum over each sequence, in float32 also for half-precision states."""
        wide_td = states_td.float() if states_td.dtype in (torch.float16, torch.bfloat16) else states_td
        return wide_td.new_zeros(len(self.lengths_r), states_td.shape[1]).index_add(0, self.owner_t, wide_td)


def pool_mean(states_td: Tensor, spans: Spans) -> Tensor:
    """Average of the token embeddings."""
    return (spans.total(states_td) / spans.lengths_r[:, None]).to(states_td.dtype)


def pool_mean_sqrt_len(states_td: Tensor, spans: Spans) -> Tensor:
    """Sum of the token embeddings over the square root of their number."""
    return (spans.total(states_td) / spans.lengths_r[:, None].sqrt()).to(states_td.dtype)


def pool_weighted_mean(states_td: Tensor, spans: Spans) -> Tensor:
    """Average weighted by position, 1 for the first token (SGPT, https://arxiv.org/abs/2202.08904)."""
    position_t = torch.arange(1, len(spans.owner_t) + 1, device=states_td.device) - spans.starts_r[spans.owner_t]
    weight_t = position_t.to(states_td.dtype if states_td.dtype == torch.float64 else torch.float32)
    weight_sum_r = spans.lengths_r * (spans.lengths_r + 1) / 2
    return (spans.total(states_td * weight_t[:, None]) / weight_sum_r[:, None]).to(states_td.dtype)


def pool_max(states_td: Tensor, spans: Spans) -> Tensor:
    """Largest value of each dimension."""
    return torch.segment_reduce(states_td, "max", lengths=spans.lengths_r)


def pool_cls(states_td: Tensor, spans: Spans) -> Tensor:
    """The first token's embedding."""
    return states_td[spans.starts_r]


def pool_last_token(states_td: Tensor, spans: Spans) -> Tensor:
    """The last token's embedding."""
    return states_td[spans.starts_r + spans.lengths_r - 1]


POOLINGS: dict[str, Callable[[Tensor, Spans], Tensor]] = {
    "mean": pool_mean,
    "cls": pool_cls,
    "max": pool_max,
    "mean_sqrt_len": pool_mean_sqrt_len,
    "weighted_mean": pool_weighted_mean,
    "last_token": pool_last_token,
}


def pooling_of(mode: str) -> Callable[[Tensor, Spans], Tensor]:
    """The function of a mode, of an installed package where it is none of stfit's."""
    if mode in POOLINGS:
        return POOLINGS[mode]
    function: Callable[[Tensor, Spans], Tensor] = load_installed(installed("pooling")[mode])
    return function


def compute_pooled(modes: tuple[str, ...], states_td: Tensor, lengths_r: Tensor) -> Tensor:
    """[tokens, dim] -> [sequences, len(modes) * dim]: the modes side by side, in their order."""
    spans = Spans.of(lengths_r)
    return torch.cat([pooling_of(mode)(states_td, spans) for mode in modes], dim=1)


def without_prompts(states_td: Tensor, lengths_r: Tensor, prompts_r: Tensor) -> tuple[Tensor, Tensor]:
    """States and lengths without each sequence's first `prompts_r[i]` tokens (at least one token is kept)."""
    spans = Spans.of(lengths_r)
    skip_r = prompts_r.minimum(lengths_r - 1)
    position_t = torch.arange(len(spans.owner_t), device=states_td.device) - spans.starts_r[spans.owner_t]
    return states_td[position_t >= skip_r[spans.owner_t]], lengths_r - skip_r
