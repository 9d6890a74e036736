"""A run that goes on without learning anything, said by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stfit.errors import Problem

if TYPE_CHECKING:
    from stfit.training.loop import StepInfo

LONG = 5
"""Steps in a row that are no accident."""
SAME = 1e-6
"""Embeddings that differ by less are the same, but for rounding."""


class Diagnostics:
    """Watches the steps of a process."""

    def __init__(self, steps: int) -> None:
        """`steps`: how many there will be."""
        self.patience = min(LONG, steps)
        self.consecutive = {"zero-gradient": 0, "constant-embeddings": 0}

    def check_step(self, info: StepInfo) -> list[Problem]:
        """What is wrong since some steps, told once."""
        signs = {"zero-gradient": info.grad_norm == 0, "constant-embeddings": info.spread < SAME}
        self.consecutive = {code: self.consecutive[code] + 1 if seen else 0 for code, seen in signs.items()}
        since = f"in {self.patience} steps in a row, up to step {info.step}: nothing is learnt"
        messages = {
            "zero-gradient": f"the gradient was 0 {since}. Is every row good enough for the loss (its margin), "
            "or all that it depends on frozen (train.freeze)?",
            "constant-embeddings": f"all texts had the same embedding {since}. "
            "Are the base's weights good, or is train.learning_rate too high?",
        }
        return [Problem(messages[code], code) for code, count in self.consecutive.items() if count == self.patience]
