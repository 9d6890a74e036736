"""Which rows every step trains on.

A pure function of the seed, the data and the settings, so that a run can be resumed at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import count, groupby, islice
from typing import NamedTuple

import numpy as np

from stfit.data.batching.shuffle_buffer import LazyBatch

EpochBatches = Callable[[int], list[np.ndarray]]
"""Epoch -> batches of example indices, in order."""

Streams = Mapping[int, Iterable[LazyBatch]]
"""Objective -> its batches without end, where they are drawn from a stream; its epoch is then an example of them."""


class ScheduledBatch(NamedTuple):
    """One batch of an objective, at its place in the order of all."""

    time: float
    """In epochs of the run."""
    objective: int
    rows: np.ndarray | LazyBatch
    """Of the objective's examples, or as drawn from its stream."""


@dataclass(frozen=True)
class BatchSchedule:
    """The run as steps. A step takes `accumulate` batches of one epoch; an epoch's last step may have fewer.

    With streams there are no epochs of the run.
    """

    objectives: Sequence[EpochBatches]
    sampling_rates: list[float]
    """How often each objective's rows are seen in an epoch of the run."""
    seed: int
    accumulate: int
    total_steps: int
    steps_per_epoch: int
    streams: Streams = field(default_factory=dict)

    def steps(self, first_step: int) -> Iterator[list[ScheduledBatch]]:
        """Batches of each step from the 0-based `first_step` to the end of the run; those before are drawn now."""
        steps = self.infinite_steps()
        next(islice(steps, first_step, first_step), None)
        return islice(steps, self.total_steps - first_step)

    def infinite_steps(self) -> Iterator[list[ScheduledBatch]]:
        """Batches of each step, epoch after epoch; an epoch is made when its first step is asked for."""
        for _, epoch in groupby(self.interleave(), lambda turn: 0 if self.streams else int(turn.time)):
            while step := list(islice(epoch, self.accumulate)):
                yield step

    def interleave(self) -> Iterator[ScheduledBatch]:
        """The batches of all objectives without end, those of each evenly spread over the run.

        Which of them begins follows from the seed; objectives with as many batches take turns in one order.
        """
        places = np.random.default_rng(self.seed).permutation(len(self.objectives)).tolist()
        turns = []
        for index, (epoch_batches, speed) in enumerate(zip(self.objectives, self.sampling_rates, strict=True)):
            place = (places[index] + 0.5) / len(self.objectives)
            if index in self.streams:
                turns.append(_timed_stream(index, self.streams[index], speed * len(epoch_batches(0)), place))
            else:
                turns.append(_timed_batches(index, epoch_batches, speed, place))
        return merge(*turns, key=lambda turn: turn.time)


def _timed_stream(objective: int, stream: Iterable[LazyBatch], rate: float, place: float) -> Iterator[ScheduledBatch]:
    """The batches of a stream, `rate` of them in an epoch of the run; `place` as in timed_batches."""
    for number, drawn in enumerate(stream):
        yield ScheduledBatch((number + place) / rate, objective, drawn)


def _timed_batches(objective: int, epoch_batches: EpochBatches, speed: float, place: float) -> Iterator[ScheduledBatch]:
    """The batches of one objective, epoch after epoch; `place`: where in its time a batch comes, in 0..1."""
    for epoch in count():
        made = epoch_batches(epoch)
        for number, rows in enumerate(made):
            yield ScheduledBatch((epoch + (number + place) / len(made)) / speed, objective, rows)


def build_batch_schedule(
    objectives: Sequence[EpochBatches],
    weights: list[float] | None,
    seed: int,
    accumulate: int,
    epochs: float,
    max_steps: int | None,
    streams: Streams | None = None,
) -> BatchSchedule:
    """Count the steps: `max_steps` where given, else `epochs` times the steps of the first epoch.

    An epoch has as many batches as all objectives together have in theirs. `weights`: share of each; None gives each
    its own number, so that an epoch sees all rows once.
    """
    sizes = [len(epoch_batches(0)) for epoch_batches in objectives]
    steps_per_epoch = -(-sum(sizes) // accumulate)
    weights = weights or [float(size) for size in sizes]
    speeds = [weight / sum(weights) * sum(sizes) / size for weight, size in zip(weights, sizes, strict=True)]
    total = max_steps if max_steps is not None else max(1, round(epochs * steps_per_epoch))
    return BatchSchedule(objectives, speeds, seed, accumulate, total, steps_per_epoch, streams or {})
