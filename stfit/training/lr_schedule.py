"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def learning_rate_at(step: int, total_steps: int, warmup_steps: int, schedule: str, highest: float) -> float:
    """Learning rate of the 0-based `step`.

    Warm-up ends at `highest` in step `warmup_steps - 1` and wastes no step on a rate of 0; the last step is still
    above 0.
    """
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    left = (total_steps - step) / max(1, total_steps - warmup_steps)
    match schedule:
        case "linear":
            return highest * left
        case "cosine":
            return highest * (1 - math.cos(math.pi * left)) / 2
        case _:
            return highest


def duration_in_steps(share: float | None, steps: int | None, total_steps: int, default_share: float) -> int:
    """A duration given as a share of the run or in steps, in steps; at least 1."""
    if steps is not None:
        return steps
    return max(1, round((default_share if share is None else share) * total_steps))
