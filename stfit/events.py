"""What happens in the course of a command: `iter_train` and `iter_encode` yield these, and `Finished` last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Started:
    """Data and model are loaded, and the first step follows."""

    run: Path
    rows: int | None
    """Training examples; None if one of the objectives is streamed."""
    dropped: dict[str, int]
    """Reason -> number of rows that were left out."""
    first_step: int
    """0, or the step that a resumed run goes on from."""
    total_steps: int
    main: list[str]
    """The metrics to show first."""


@dataclass(frozen=True)
class StepInfo:
    """One finished optimizer step. The names are keys of metrics.jsonl, where `loss` is a mean since the last line."""

    step: int
    """Finished steps: 1 after the first."""
    loss: float
    objectives: list[int]
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    spread: float
    """Largest difference between two embeddings in one dimension, relative to the largest value; 0 if all are equal."""
    rows: int
    tokens: int
    seconds: float
    spent: dict[str, float]
    """Seconds by part of the step: data, forward, backward, optimizer."""
    seconds_left: float | None = None
    """Until the end of the training, with the evaluations that are due: estimated from those that have passed."""
    terms: dict[str, float] = field(default_factory=dict)
    """If a loss is a list: type of loss -> its part of the sum. In metrics.jsonl, a mean like `loss`: `loss/TYPE`."""


@dataclass(frozen=True)
class Evaluated:
    """The evaluators ran after `step` (0: before the first)."""

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Encoded:
    """Another part of the embeddings was written."""

    rows: int
    """Of the input, so far."""
    rows_per_second: float
    share: float | None
    """Of the input, from 0 to 1; None if its length is unknown."""


@dataclass(frozen=True)
class Finished:
    """The command has finished."""

    result: dict[str, Any]
    """What `--json` prints."""
    main: Sequence[str] = ()
    """The metrics to show first."""
    again: bool = False
    """The run had finished before, and nothing was trained."""


TrainEvent = Started | StepInfo | Evaluated | Finished
EncodeEvent = Encoded | Finished
