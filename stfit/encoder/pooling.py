"""Token embeddings -> one embedding per sequence.

A pooling is one function of TokenStates, and its entry in POOLINGS. It may use what TokenStates and PaddedStates have
in common, so that the same function pools sequences laid end to end and, in an exported graph, padded rectangles.
Tensor names: t = tokens of all sequences, r = sequences, l = tokens of the longest, d = dim of a token embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator

from stfit.lazy import Tensor, torch
from stfit.plugins import installed_entry_points, load_entry_point


@dataclass(frozen=True)
class TokenStates:
    """Token embeddings of sequences: i owns `lengths_r[i]` (at least 1) tokens from `starts_r[i]` on."""

    states: Tensor  # [t, d]
    lengths_r: Tensor
    ids_t: Tensor
    weight_sum_r: Tensor | None = None
    """Sum of the weights of each sequence's tokens, if they were weighted: what a mean divides by."""
    skip_r: Tensor | None = None
    """Number of tokens that were left out before the first of each sequence, if its prompt was."""

    @classmethod
    def from_sequences(cls, states_td: Tensor, sequences: list[np.ndarray]) -> TokenStates:
        lengths_r = torch.tensor([len(sequence) for sequence in sequences], device=states_td.device)
        ids_t = torch.from_numpy(np.concatenate(sequences)).to(states_td.device)
        return cls(states_td, lengths_r, ids_t)

    @cached_property
    def starts_r(self) -> Tensor:
        return self.lengths_r.cumsum(0) - self.lengths_r

    @cached_property
    def owner_t(self) -> Tensor:
        return torch.arange(len(self.lengths_r), device=self.lengths_r.device).repeat_interleave(self.lengths_r)

    @cached_property
    def positions(self) -> Tensor:
        """Position of each token in its sequence, 0 for the first; tokens that were left out count."""
        start_r = self.starts_r if self.skip_r is None else self.starts_r - self.skip_r
        return torch.arange(len(self.owner_t), device=self.owner_t.device) - start_r[self.owner_t]

    def total(self, values_td: Tensor) -> Tensor:
        """Sum over each sequence, in float32 also for half-precision values."""
        wide_td = values_td.float() if values_td.dtype in (torch.float16, torch.bfloat16) else values_td
        return wide_td.new_zeros(len(self.lengths_r), values_td.shape[1]).index_add(0, self.owner_t, wide_td)

    def mean_divisor(self, unweighted_r: Tensor) -> Tensor:
        """[sequences, 1] to divide a sum by: `unweighted_r`, or the tokens' weights if they have some."""
        return (unweighted_r if self.weight_sum_r is None else self.weight_sum_r.clamp(min=1e-9))[:, None]

    def largest(self) -> Tensor:
        return torch.segment_reduce(self.states, "max", lengths=self.lengths_r)

    def first(self) -> Tensor:
        return self.states[self.starts_r]

    def last(self) -> Tensor:
        return self.states[self.starts_r + self.lengths_r - 1]


@dataclass(frozen=True)
class PaddedStates:
    """TokenStates in a rectangle with padding on either side, for graphs without data-dependent shapes."""

    states: Tensor  # [r, l, d]
    mask_rl: Tensor

    @property
    def lengths_r(self) -> Tensor:
        return self.mask_rl.sum(dim=1)

    @property
    def positions(self) -> Tensor:
        return self.mask_rl.cumsum(dim=1) - 1

    def total(self, values_rld: Tensor) -> Tensor:
        return (values_rld * self.mask_rl[:, :, None]).sum(dim=1)

    def mean_divisor(self, unweighted_r: Tensor) -> Tensor:
        return unweighted_r[:, None]

    def largest(self) -> Tensor:
        return self.states.masked_fill(self.mask_rl[:, :, None] == 0, -torch.inf).amax(dim=1)

    def first(self) -> Tensor:
        return self._at(self.mask_rl.argmax(dim=1))

    def last(self) -> Tensor:
        return self._at(self.mask_rl.cumsum(dim=1).argmax(dim=1))

    def _at(self, column_r: Tensor) -> Tensor:
        return self.states.gather(1, column_r[:, None, None].expand(-1, 1, self.states.shape[2]))[:, 0]


Tokens = TokenStates | PaddedStates


def _pool_mean(tokens: Tokens) -> Tensor:
    return tokens.total(tokens.states) / tokens.mean_divisor(tokens.lengths_r)


def _pool_mean_sqrt_len(tokens: Tokens) -> Tensor:
    return tokens.total(tokens.states) / tokens.mean_divisor(tokens.lengths_r).sqrt()


def _pool_weighted_mean(tokens: Tokens) -> Tensor:
    """Average weighted by position, 1 for the first token (SGPT, https://arxiv.org/abs/2202.08904)."""
    wide = torch.float64 if tokens.states.dtype == torch.float64 else torch.float32
    weights = (tokens.positions + 1).to(wide)[..., None]
    return tokens.total(tokens.states * weights) / tokens.mean_divisor(tokens.total(weights)[:, 0])


class Pooling(NamedTuple):
    """A way to pool, and its name in sentence-transformers; without one, only stfit can load the model."""

    pool: Callable[[Any], Tensor]
    st_name: str | None = None
    st_flag: str | None = None


POOLINGS = {
    "cls": Pooling(lambda tokens: tokens.first(), "cls", "pooling_mode_cls_token"),
    "max": Pooling(lambda tokens: tokens.largest(), "max", "pooling_mode_max_tokens"),
    "mean": Pooling(_pool_mean, "mean", "pooling_mode_mean_tokens"),
    "mean_sqrt_len": Pooling(_pool_mean_sqrt_len, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    "weighted_mean": Pooling(_pool_weighted_mean, "weightedmean", "pooling_mode_weightedmean_tokens"),
    "last_token": Pooling(lambda tokens: tokens.last(), "lasttoken", "pooling_mode_lasttoken"),
}
"""Name in a recipe -> pooling, in the order in which sentence-transformers concatenates those whose flags are set."""

ST_POOLINGS = {pooling.st_name: name for name, pooling in POOLINGS.items() if pooling.st_name}

if TYPE_CHECKING:
    _Name = str
else:
    _default_first = sorted(POOLINGS, key=lambda name: name != "mean")
    _Name = Literal[(*_default_first, *installed_entry_points("pooling"))]
PoolingName = Annotated[
    _Name, BeforeValidator(lambda name: ST_POOLINGS.get(name, name) if isinstance(name, str) else name)
]


def compute_pooled(names: tuple[str, ...], tokens: Tokens) -> Tensor:
    """[sequences, len(names) * dim]: the results of poolings, of stfit or of packages, side by side."""
    pooled = []
    for name in names:
        pool = POOLINGS[name].pool if name in POOLINGS else load_entry_point(installed_entry_points("pooling")[name])
        pooled.append(pool(tokens).to(tokens.states.dtype))
    return torch.cat(pooled, dim=1)


def without_prompts(tokens: TokenStates, prompts_r: Tensor) -> TokenStates:
    """The sequences without the first `prompts_r[i]` tokens of each (at least one token is kept)."""
    skip_r = prompts_r.minimum(tokens.lengths_r - 1)
    kept_t = tokens.positions >= skip_r[tokens.owner_t]
    return replace(
        tokens,
        states=tokens.states[kept_t],
        ids_t=tokens.ids_t[kept_t],
        lengths_r=tokens.lengths_r - skip_r,
        skip_r=skip_r,
    )
