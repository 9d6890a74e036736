"""AdamW (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101), which also clips, in one pass over memory.

The kernel is torch's; its optimizer class is not used, because it imports torch's compiler and clips in a second pass.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stfit.training.fsdp import local_part

BETAS = (0.9, 0.999)
EPSILON = 1e-8
DIVIDING_KERNELS = ("cpu", "cuda")
"""Devices whose kernel is known to divide the gradients; that of Metal takes the divisor and may ignore it."""


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
            gradients = [local_part(weight.grad) for weight in weights]
            in_kernel = divisor if weights[0].device.type in DIVIDING_KERNELS else None
            if divisor is not None and in_kernel is None:
                torch._foreach_div_(gradients, divisor)
            states = [self._state_of(weight) for weight in weights]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                [local_part(weight) for weight in weights],
                gradients,
                [local_part(state["exp_avg"]) for state in states],
                [local_part(state["exp_avg_sq"]) for state in states],
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

    def _state_of(self, weight: nn.Parameter) -> dict[str, Tensor]:
        if weight not in self.state:
            step = torch.zeros((), dtype=torch.float32, device=weight.device)
            moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            self.state[weight] = {"step": step, **moments}
        return self.state[weight]

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None
