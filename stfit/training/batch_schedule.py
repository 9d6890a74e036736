"""Which rows every step trains on.

A pure function of the seed, the data and the settings, so that a run can resume at any step.
"""

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
"""Index of a streaming objective -> its endless batches. Its EpochBatches then only give the size of an epoch."""


class ScheduledBatch(NamedTuple):
    time: float
    """In epochs of the run."""
    objective: int
    rows: np.ndarray | LazyBatch
    """Indices of the objective's examples, or a batch of its stream."""


@dataclass(frozen=True)
class BatchSchedule:
    """The steps of a run, each with `accumulate` batches of one epoch, or fewer at its end. A stream has no epochs."""

    objectives: Sequence[EpochBatches]
    sampling_rates: list[float]
    """How often each objective's rows are seen per epoch of the run."""
    seed: int
    accumulate: int
    total_steps: int
    steps_per_epoch: int
    streams: Streams = field(default_factory=dict)

    def steps(self, first_step: int) -> Iterator[list[ScheduledBatch]]:
        """Batches of each step from the 0-based `first_step` to the end; skips the earlier steps at once."""
        steps = self._infinite_steps()
        next(islice(steps, first_step, first_step), None)
        return islice(steps, self.total_steps - first_step)

    def rows_of(self, objective: int) -> np.ndarray | None:
        """Indices of the objective's examples that the run trains on, ascending; None if it may see all of them."""
        if self.streams or self.total_steps >= self.steps_per_epoch:
            return None
        rows = [batch.rows for step in self.steps(0) for batch in step if batch.objective == objective]
        return np.unique(np.concatenate([np.empty(0, np.int64), *rows]))

    def _infinite_steps(self) -> Iterator[list[ScheduledBatch]]:
        # An epoch is sampled when its first step is needed.
        for _, epoch in groupby(self._interleave(), lambda batch: 0 if self.streams else int(batch.time)):
            while step := list(islice(epoch, self.accumulate)):
                yield step

    def _interleave(self) -> Iterator[ScheduledBatch]:
        """The endless batches of all objectives, those of each evenly spread; the seed decides which one begins."""
        places = np.random.default_rng(self.seed).permutation(len(self.objectives)).tolist()
        sequences = []
        for index, (epoch_batches, rate) in enumerate(zip(self.objectives, self.sampling_rates, strict=True)):
            offset = (places[index] + 0.5) / len(self.objectives)
            if index in self.streams:
                batches_per_epoch = rate * len(epoch_batches(0))
                sequences.append(_schedule_stream(index, self.streams[index], batches_per_epoch, offset))
            else:
                sequences.append(_schedule_epochs(index, epoch_batches, rate, offset))
        return merge(*sequences, key=lambda batch: batch.time)


def _schedule_stream(
    objective: int, stream: Iterable[LazyBatch], batches_per_epoch: float, offset: float
) -> Iterator[ScheduledBatch]:
    for number, batch in enumerate(stream):
        yield ScheduledBatch((number + offset) / batches_per_epoch, objective, batch)


def _schedule_epochs(
    objective: int, epoch_batches: EpochBatches, rate: float, offset: float
) -> Iterator[ScheduledBatch]:
    """`offset`: where a batch lies within its share of the epoch, in 0..1."""
    for epoch in count():
        batches = epoch_batches(epoch)
        for number, rows in enumerate(batches):
            yield ScheduledBatch((epoch + (number + offset) / len(batches)) / rate, objective, rows)


def build_batch_schedule(
    objectives: Sequence[EpochBatches],
    weights: list[float] | None,
    seed: int,
    accumulate: int,
    epochs: float,
    max_steps: int | None,
    streams: Streams | None = None,
) -> BatchSchedule:
    """Schedule `max_steps` steps, or else `epochs` times the steps of the first epoch.

    An epoch of the run has as many batches as the epochs of all objectives together. `weights` are the objectives'
    shares of the batches; None gives each objective as many as it has, so that an epoch sees every row once.
    """
    sizes = [len(epoch_batches(0)) for epoch_batches in objectives]
    steps_per_epoch = -(-sum(sizes) // accumulate)
    weights = weights or [float(size) for size in sizes]
    rates = [weight / sum(weights) * sum(sizes) / size for weight, size in zip(weights, sizes, strict=True)]
    total = max_steps if max_steps is not None else max(1, round(epochs * steps_per_epoch))
    return BatchSchedule(objectives, rates, seed, accumulate, total, steps_per_epoch, streams or {})
