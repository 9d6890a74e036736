"""Which rows every step trains on.

A pure function of the seed, the data and the settings, so that a run can be resumed at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

EpochBatches = Callable[[int], list[np.ndarray]]
"""Epoch -> batches of example indices, in order."""


@dataclass(frozen=True)
class Plan:
    """The run as steps. A step takes `accumulate` batches of one epoch; an epoch's last step may have fewer."""

    epoch_batches: EpochBatches
    accumulate: int
    total_steps: int
    steps_per_epoch: int

    def steps(self, first_step: int) -> Iterator[list[np.ndarray]]:
        """Batches of each step from the 0-based `first_step` to the end of the run."""
        return islice(self.endless_steps(), first_step, self.total_steps)

    def endless_steps(self) -> Iterator[list[np.ndarray]]:
        """Batches of each step, epoch after epoch; an epoch is made when its first step is asked for."""
        for epoch in count():
            batches = self.epoch_batches(epoch)
            for start in range(0, len(batches), self.accumulate):
                yield batches[start : start + self.accumulate]


def build_plan(epoch_batches: EpochBatches, accumulate: int, epochs: float, max_steps: int | None) -> Plan:
    """Count the steps: `max_steps` where given, else `epochs` times the steps of the first epoch."""
    steps_per_epoch = -(-len(epoch_batches(0)) // accumulate)
    total = max_steps if max_steps is not None else max(1, round(epochs * steps_per_epoch))
    return Plan(epoch_batches, accumulate, total, steps_per_epoch)
