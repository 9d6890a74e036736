"""A source as a stream: a chunk of examples at a time, drawn from like a dataset of its own, epoch after epoch.

What is drawn is a pure function of rows, seed and settings: to go on anywhere, a stream is read again from its start,
and nothing is tokenised but what a step needs. A chunk that holds all rows gives the batches of the whole source.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import count

import numpy as np

from stfit.data.batching.batches import Batch, TokenTable, number_texts
from stfit.data.batching.sampling import sample_batches
from stfit.data.checks.unused_rows import dropped_rows
from stfit.data.mapping.columns import check_roles
from stfit.data.mapping.examples import Examples, examples_in, join
from stfit.data.reading.block_reader import open_tables
from stfit.data.source import TrainingData
from stfit.data.table import Table, concatenate
from stfit.errors import DataError, Problem

log = logging.getLogger("stfit")


@dataclass(frozen=True)
class LazyBatch:
    """A batch as the sampler made it; its chunk is tokenised when the first batch of it is asked for."""

    table: Callable[[], TokenTable]
    rows: np.ndarray

    def batch(self, distinct: bool) -> Batch:
        """The batch itself, as TokenTable.batch gives it."""
        return self.table().batch(self.rows, distinct)


@dataclass
class ThrottledWarning:
    """What is left out, said whenever it has doubled: a line for each chunk would bury all others."""

    total: int = 0
    said: int = 0

    def add(self, number: int, message: str) -> None:
        """So many more."""
        self.total += number
        if number and self.total >= 2 * self.said:
            self.said = self.total
            log.warning("%s; %d so far", message, self.total)


@dataclass(frozen=True)
class StreamingBatches:
    """The batches of a source that is never in memory whole."""

    source: TrainingData
    sampler: str
    batch_size: int
    min_batch_size: int
    seed: int
    check: Callable[[Examples], None]
    """Raises DataError where the loss can't learn from the labels of some examples."""
    tokenize: Callable[[Examples], TokenTable]
    check_interrupt: Callable[[], None] = lambda: None
    """Called after each block of rows; may raise, where reading takes too long."""
    unused: ThrottledWarning = field(default_factory=ThrottledWarning)

    @property
    def chunk_size(self) -> int:
        """Examples that are drawn from at once: as many full batches as fit into the shuffle buffer."""
        return max(1, self.source.shuffle_buffer // self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[LazyBatch]:
        """The batches of one epoch after the other, without end.

        Raises DataError as soon as a row is read that is not what the recipe says.
        """
        read, dropped = open_tables(self.source), ThrottledWarning()

        def tables() -> Iterator[Table]:
            for table in read():
                yield table
                self.check_interrupt()

        for epoch in count():
            yield from self.draw(read_examples(tables(), self.source, dropped), epoch)

    def draw(self, blocks: Iterator[Examples], epoch: int) -> Iterator[LazyBatch]:
        """The batches of one epoch, chunk after chunk; what stands in no full batch waits for the next chunk."""
        rest: list[Examples] = []
        begun = last = False
        while not last:
            chunk, rest, last = _take_chunk(rest, blocks, self.chunk_size)
            with _with_row_location(chunk.row, self.source.dataset):
                self.check(chunk)
                made, waiting = self.sample(chunk, epoch, last, begun)
            table = cache(partial(self.tokenize, chunk))
            yield from (LazyBatch(table, rows) for rows in made)
            begun = True
            rest = [chunk.take(waiting), *rest]

    def sample(self, chunk: Examples, epoch: int, last: bool, begun: bool) -> tuple[list[np.ndarray], np.ndarray]:
        """Batches of a chunk, and which of its examples wait for the next one.

        Not more than half of a chunk waits: of a text or label that most rows have, more would with every chunk. Only
        the last one of an epoch that has `begun` may make no batch at all.
        """
        try:
            made = sample_batches(
                self.sampler,
                number_texts(chunk),
                chunk.label,
                self.batch_size,
                self.seed,
                chunk.fingerprint,
                self.min_batch_size,
                epoch,
            )
        except DataError as error:
            if not (last and begun):
                hint = "" if last else ": shuffle the rows, or raise `shuffle_buffer`"
                raise DataError(f"{error}{hint}") from error
            made = []
        full = [rows for rows in made if len(rows) == self.batch_size]
        waiting = _outside(full, len(chunk))
        if not last and len(waiting) <= len(chunk) / 2:
            return full, waiting
        alone = len(_outside(made, len(chunk)))
        self.unused.add(alone, f"{alone} of {len(chunk)} examples fit into no batch and are not trained on")
        return made, waiting[:0]


def _take_chunk(rest: list[Examples], blocks: Iterator[Examples], size: int) -> tuple[Examples, list[Examples], bool]:
    """The next examples, those that were read beyond them, and whether there are none."""
    while sum(map(len, rest)) <= size and (block := next(blocks, None)) is not None:
        rest.append(block)
    read = join(rest)
    if len(read) <= size:
        return read, [], True
    return read.take(np.arange(size)), [read.take(np.arange(size, len(read)))], False


def _outside(made: Sequence[np.ndarray], examples: int) -> np.ndarray:
    """Which of so many examples stand in no batch."""
    free = np.ones(examples, dtype=bool)
    for rows in made:
        free[rows] = False
    return np.flatnonzero(free)


def read_examples(
    tables: Iterable[Table], source: TrainingData, dropped: ThrottledWarning | None = None
) -> Iterator[Examples]:
    """The examples of each block of rows.

    Raises DataError, with the row, where one is not what the recipe says, or all of them make no example.
    """
    rows = found = 0
    for table in tables:
        with _with_row_location(table.row, table.origin):
            examples = examples_in(table, source)
        if dropped is not None:
            for problem in dropped_rows(table, source, examples):
                dropped.add(sum(examples.dropped.values()), problem.message)
        rows, found = rows + len(table), found + len(examples)
        yield examples
    if not found:
        message = f"none of {rows} rows makes an example: look at `columns` and `where`"
        raise DataError(Problem(message, "no-rows", source.dataset))


@contextmanager
def _with_row_location(rows: np.ndarray, origin: str) -> Iterator[None]:
    """Say of a mistake in which rows of which file it is, where it does not say so itself."""
    try:
        yield
    except DataError as error:
        where = f" (in rows {rows[0]} to {rows[-1]})"
        raise DataError(
            [
                replace(problem, file=problem.file or origin)
                if problem.row is not None
                else replace(problem, file=problem.file or origin, row=int(rows[0]), message=problem.message + where)
                for problem in error.problems
            ]
        ) from error


def read_first_examples(source: TrainingData) -> Examples:
    """The first examples of a stream, at least as many as the shuffle buffer holds if there are so many."""
    check_roles(source.columns, source.format)
    parts: list[Examples] = []
    for examples in read_examples(open_tables(source)(), source):
        parts.append(examples)
        if sum(map(len, parts)) >= source.shuffle_buffer:
            break
    return join(parts)


def read_rows_until(source: TrainingData, last: int) -> Table:
    """The rows of a stream up to the block with the row number `last`."""
    tables = []
    for table in open_tables(source)():
        tables.append(table)
        if table.row[-1] >= last:
            break
    return concatenate(tables)
