"""The learning rate as a pure function of the step."""

import math


def learning_rate_at(step: int, total_steps: int, warmup_steps: int, schedule: str, peak: float) -> float:
    """Learning rate of the 0-based `step`; warmup ends in step `warmup_steps - 1`, and no step has a rate of 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    remaining = (total_steps - step) / max(1, total_steps - warmup_steps)
    if schedule == "cosine":
        return peak * (1 - math.cos(math.pi * remaining)) / 2
    return peak * remaining if schedule == "linear" else peak


def duration_in_steps(fraction: float | None, steps: int | None, total_steps: int, default: float) -> int:
    """A duration in steps, at least 1: `steps`, else `fraction` of the run, else the fraction `default`.

    Rounded up: half of 25 steps is 13, so that the second half ends with the run and not one step before.
    """
    if steps is not None:
        return steps
    part = (default if fraction is None else fraction) * total_steps
    return max(1, math.ceil(part - 1e-9))  # 0.07 * 100 is a little more than 7
