"""AdamW (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101), which also clips, in one pass over memory.

The kernel is torch's; its optimizer class is not used, because it imports torch's compiler and clips in a second pass.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stfit.training.fsdp import local_part

BETAS = (0.9, 0.999)
EPSILON = 1e-8
DIVIDING_KERNELS = ("cpu", "cuda")
"""Devices whose kernel is known to divide the gradients; that of Metal takes the divisor and may ignore it."""


MOMENTS = ("exp_avg", "exp_avg_sq")
MAX_GATHERED = 1 / 3
"""Share of a table's rows up to which it is faster to gather them and to write them back than to pass over all."""


class _Part(NamedTuple):
    weight: Tensor
    gradient: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    rows: Tensor | None = None
    """The rows of a table that the others are copies of; None for a whole weight."""

    def write_back(self, weight: Tensor, state: dict[str, Tensor]) -> None:
        if self.rows is not None:
            weight.index_copy_(0, self.rows, self.weight)
            state["exp_avg"].index_copy_(0, self.rows, self.exp_avg)
            state["exp_avg_sq"].index_copy_(0, self.rows, self.exp_avg_sq)


class AdamW:
    def __init__(self, param_groups: list[dict[str, Any]]) -> None:
        """Each group has `params` and `weight_decay`; `lr` has to be set before each step."""
        self.param_groups = param_groups
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    @property
    def weights(self) -> list[nn.Parameter]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @torch.no_grad()
    def step(self, divisor: Tensor | None = None) -> None:
        """Update every weight that has a gradient, which is divided by `divisor` first."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            parts = [self._part(weight, 1 - group["lr"] * group["weight_decay"]) for weight in weights]
            in_kernel = divisor if weights[0].device.type in DIVIDING_KERNELS else None
            if divisor is not None and in_kernel is None:
                torch._foreach_div_([part.gradient for part in parts], divisor)
            steps = [self.state[weight]["step"] for weight in weights]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                [part.weight for part in parts],
                [part.gradient for part in parts],
                [part.exp_avg for part in parts],
                [part.exp_avg_sq for part in parts],
                [],
                steps,
                lr=group["lr"],
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=group["weight_decay"],
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
                grad_scale=in_kernel,
            )
            for weight, part in zip(weights, parts, strict=True):
                part.write_back(weight, self.state[weight])

    def _part(self, weight: nn.Parameter, kept: float) -> _Part:
        """What the kernel works on: a whole weight, or the rows of a table that ever had a gradient.

        The moments of other rows are 0, so the kernel would only multiply these rows by `kept`, which is done here.
        """
        gradient, state = weight.grad, self._state_of(weight)
        assert gradient is not None
        seen = state.pop("seen", None)
        if gradient.is_sparse:
            if seen is None and not state["step"]:
                seen = torch.zeros(len(weight), dtype=torch.bool)
            elif seen is None:  # whole gradients came first
                seen = _any_in_row(state["exp_avg"]) | _any_in_row(state["exp_avg_sq"])
            state["seen"] = seen
            (indices,), values = gradient.indices(), gradient.values()
            seen[indices] = True
            rows = seen.nonzero().squeeze(1)
            if len(rows) < len(weight) * MAX_GATHERED:
                gathered = weight[rows]
                if kept < 1:
                    weight.mul_(kept)
                spread = torch.zeros_like(gathered).index_copy_(0, torch.searchsorted(rows, indices), values)
                return _Part(gathered, spread, state["exp_avg"][rows], state["exp_avg_sq"][rows], rows)
            gradient = gradient.to_dense()
        moments = (local_part(state[name]) for name in MOMENTS)
        return _Part(local_part(weight), local_part(gradient), *moments)

    def _state_of(self, weight: nn.Parameter) -> dict[str, Tensor]:
        if weight not in self.state:
            step = torch.zeros((), dtype=torch.float32, device=weight.device)
            is_table = weight.grad is not None and weight.grad.is_sparse
            zeros = _unwritten_zeros if is_table else torch.zeros_like
            self.state[weight] = {"step": step, **{name: zeros(weight) for name in MOMENTS}}
        return self.state[weight]

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None


def _any_in_row(table: Tensor) -> Tensor:
    return (table != 0).any(dim=1)


def _unwritten_zeros(like: Tensor) -> Tensor:
    """Zeros that take no memory until they are written to, as those of numpy; torch.zeros_like would write them."""
    return torch.from_numpy(np.zeros(like.nbytes, dtype=np.uint8)).view(like.dtype).view_as(like)
