"""Detect a run that continues without learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stfit.errors import Problem

if TYPE_CHECKING:
    from stfit.events import StepInfo

PATIENCE = 5
MIN_SPREAD = 1e-6
"""Embeddings that differ by less are equal up to rounding."""


class Diagnostics:
    def __init__(self, total_steps: int) -> None:
        self.patience = min(PATIENCE, total_steps)
        self.consecutive = {"zero-gradient": 0, "constant-embeddings": 0}

    def check_step(self, info: StepInfo) -> list[Problem]:
        """Problems that the last `patience` steps had in common; each series is reported once."""
        symptoms = {"zero-gradient": info.grad_norm == 0, "constant-embeddings": info.spread < MIN_SPREAD}
        self.consecutive = {code: self.consecutive[code] + 1 if present else 0 for code, present in symptoms.items()}
        since = f"in {self.patience} consecutive steps up to step {info.step}: nothing is learned"
        messages = {
            "zero-gradient": f"the gradient was 0 {since}. Does every row already satisfy the loss (its margin), "
            "or is every weight that the loss depends on frozen (train.freeze)?",
            "constant-embeddings": f"all texts had the same embedding {since}. "
            "Are the base's weights usable, or is train.learning_rate too high?",
        }
        return [Problem(messages[code], code) for code, count in self.consecutive.items() if count == self.patience]
