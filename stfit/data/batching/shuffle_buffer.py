"""Batches of a streamed source: reads a chunk of examples at a time and samples it like a dataset of its own.

The batches are a pure function of rows, seed and settings. To resume, the stream is read again from its start; only the
batches that a step needs are tokenized. If one chunk holds all rows, the batches equal those of a source in memory.
"""

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
from stfit.data.mapping.examples import Examples, join
from stfit.data.mapping.load_examples import examples_in
from stfit.data.reading.load_table import open_blocks
from stfit.data.source import TrainingData
from stfit.data.table import Table, concatenate
from stfit.errors import DataError, Problem

log = logging.getLogger("stfit")


@dataclass(frozen=True)
class LazyBatch:
    """A batch of a chunk that is tokenized when its first batch is needed."""

    table: Callable[[], TokenTable]
    rows: np.ndarray

    def batch(self, distinct: bool) -> Batch:
        return self.table().batch(self.rows, distinct)


@dataclass
class ThrottledWarning:
    """Logs a running total each time it has doubled, since a line per chunk would flood the log."""

    total: int = 0
    last_logged: int = 0

    def add(self, number: int, message: str) -> None:
        self.total += number
        if number and self.total >= 2 * self.last_logged:
            self.last_logged = self.total
            log.warning("%s; %d so far", message, self.total)


@dataclass(frozen=True)
class StreamingBatches:
    """The batches of a source that is never in memory as a whole."""

    source: TrainingData
    sampler: str
    batch_size: int
    min_batch_size: int
    seed: int
    check: Callable[[Examples], None]
    tokenize: Callable[[Examples], TokenTable]
    check_interrupt: Callable[[], None] = lambda: None
    """Called after each block of rows; may raise."""
    keep: Callable[[Examples], Examples] = lambda examples: examples
    """The examples of a block that are trained on."""
    unused: ThrottledWarning = field(default_factory=ThrottledWarning)

    @property
    def chunk_size(self) -> int:
        return max(1, self.source.shuffle_buffer // self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[LazyBatch]:
        """The batches of all epochs, without end. Raises DataError when it reads an invalid row."""
        read, dropped = open_blocks(self.source), ThrottledWarning()

        def tables() -> Iterator[Table]:
            for table in read():
                yield table
                self.check_interrupt()

        for epoch in count():
            yield from self.sample_epoch(map(self.keep, read_examples(tables(), self.source, dropped)), epoch)

    def sample_epoch(self, blocks: Iterator[Examples], epoch: int) -> Iterator[LazyBatch]:
        rest: list[Examples] = []
        started = last = False
        while not last:
            chunk, rest, last = _take_chunk(rest, blocks, self.chunk_size)
            with _with_row_location(chunk.row, self.source.dataset):
                self.check(chunk)
                batches, waiting = self.sample_chunk(chunk, epoch, last, started)
            table = cache(partial(self.tokenize, chunk))
            yield from (LazyBatch(table, rows) for rows in batches)
            started = True
            rest = [chunk.take(waiting), *rest]

    def sample_chunk(
        self, chunk: Examples, epoch: int, last: bool, started: bool
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Batches of a chunk, and the examples that wait for the next one.

        If more than half of a chunk would wait, none does: with a text or label that most rows have, the rest would
        grow with every chunk. Only the last chunk of an epoch that has `started` may have no batch.
        """
        try:
            settings = self.batch_size, self.seed, chunk.fingerprint, self.min_batch_size
            batches = sample_batches(self.sampler, number_texts(chunk), chunk.label, *settings, epoch)
        except DataError as error:
            if not (last and started):
                hint = "" if last else ": shuffle the rows, or raise `shuffle_buffer`"
                raise DataError(f"{error}{hint}") from error
            batches = []
        full = [rows for rows in batches if len(rows) == self.batch_size]
        waiting = _outside(full, len(chunk))
        if not last and len(waiting) <= len(chunk) / 2:
            return full, waiting
        unused = len(_outside(batches, len(chunk)))
        self.unused.add(unused, f"{unused} of {len(chunk)} examples fit into no batch and are not used for training")
        return batches, waiting[:0]


def _take_chunk(rest: list[Examples], blocks: Iterator[Examples], size: int) -> tuple[Examples, list[Examples], bool]:
    while sum(map(len, rest)) <= size and (block := next(blocks, None)) is not None:
        rest.append(block)
    read = join(rest)
    if len(read) <= size:
        return read, [], True
    return read.take(np.arange(size)), [read.take(np.arange(size, len(read)))], False


def _outside(batches: Sequence[np.ndarray], examples: int) -> np.ndarray:
    return np.setdiff1d(np.arange(examples), np.concatenate([np.empty(0, np.int64), *batches]))


def read_examples(
    tables: Iterable[Table], source: TrainingData, dropped: ThrottledWarning | None = None
) -> Iterator[Examples]:
    """The examples of each block of rows. Raises DataError with a row, or if no row makes an example."""
    rows = total = 0
    for table in tables:
        with _with_row_location(table.row, table.origin):
            examples = examples_in(table, source)
        if dropped is not None:
            for problem in dropped_rows(table, source, examples):
                dropped.add(sum(examples.dropped.values()), problem.message)
        rows, total = rows + len(table), total + len(examples)
        yield examples
    if not total:
        message = f"no example can be made from {rows} rows: check `columns` and `where`"
        raise DataError(Problem(message, "no-rows", source.dataset))


@contextmanager
def _with_row_location(rows: np.ndarray, origin: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        location = f" (in rows {rows[0]} to {rows[-1]})"
        located = [
            replace(problem, row=int(rows[0]), message=problem.message + location) if problem.row is None else problem
            for problem in error.problems
        ]
        raise DataError([replace(problem, file=problem.file or origin) for problem in located]) from error


def read_first_examples(source: TrainingData) -> tuple[Examples, Table]:
    """The first examples of a stream, and the rows that they are from.

    At least as many examples as the shuffle buffer holds, if there are that many.
    """
    check_roles(source.columns, source.format)
    tables: list[Table] = []
    parts: list[Examples] = []

    def read_blocks() -> Iterator[Table]:
        for table in open_blocks(source)():
            tables.append(table)
            yield table

    for examples in read_examples(read_blocks(), source):
        parts.append(examples)
        if sum(map(len, parts)) >= source.shuffle_buffer:
            break
    return join(parts), concatenate(tables)
