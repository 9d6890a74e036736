"""Every way stfit can refuse or fail, with its exit code.

StfitError                 1  a bug, when nothing more precise fits
├── RecipeError            2  the recipe (or the command line) is wrong by itself
├── DataError              3  rows, columns or splits are not what the recipe says
├── ModelError             4  a base or model folder can't serve
├── HubError               5  the Hub can't be reached, or refuses
├── DivergedError          6  loss, gradient or weights are no longer finite
├── GateError              7  measured, and not good enough to publish
├── LockError              8  something moved since the lock was written
└── ResourceError          9  disk, memory, or another process in the way
    └── PeerLost           9  another process of this run is gone
InterruptedRun       130/143  stopped by a signal, resumable; no Exception, so that no library mistakes it for a failure
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches


@dataclass(frozen=True)
class Problem:
    """One mistake: what is wrong, where, and what to change. `code` is stable, for machines."""

    message: str
    code: str = "error"
    file: str | None = None
    line: int | None = None
    column: int | None = None
    row: int | None = None
    snippet: str | None = None
    key: str | None = None
    """What it is about, below the section of a recipe that names the data: `split`, `columns.anchor`."""

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n{self.snippet}" if self.snippet else text


class StfitError(Exception):
    """What a user reads instead of a traceback: one message, or a list of problems found together."""

    exit_code = 1
    code = "error"
    """That of a problem which has none of its own."""

    def __init__(self, message: str | Problem | list[Problem]) -> None:
        found = message if isinstance(message, list) else [message]
        self.problems = [Problem(item, self.code) if isinstance(item, str) else item for item in found]
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecipeError(StfitError):
    """The recipe, or an argument, is wrong before any data is seen."""

    exit_code = 2
    code = "recipe"


class DataError(StfitError):
    """The data is not what the recipe says."""

    exit_code = 3
    code = "data"


class ModelError(StfitError):
    """A base model or a model folder can't be used."""

    exit_code = 4
    code = "model"


class HubError(StfitError):
    """The Hub could not be reached, or said no."""

    exit_code = 5
    code = "hub"


class DivergedError(StfitError):
    """Training stopped because a number was no longer finite."""

    exit_code = 6


class GateError(StfitError):
    """The model was measured and does not pass its gate."""

    exit_code = 7


class LockError(StfitError):
    """Something the lock pins has moved."""

    exit_code = 8


class ResourceError(StfitError):
    """The disk is full, memory ran out, or the run folder is in use."""

    exit_code = 9
    code = "resource"


class WorkerLostError(ResourceError):
    """One of several processes is gone: what it met with is the news, not this."""


class InterruptedRun(BaseException):
    """A signal stopped the run; exit code 128 + the signal's number.

    Like KeyboardInterrupt it is no Exception: a library that tries a download again, or reports a failed one as its
    own error, has to let it pass.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


@contextmanager
def at_key(key: str) -> Iterator[None]:
    """A block whose mistakes are about a key of the data's section, where they don't say so themselves."""
    try:
        yield
    except (RecipeError, DataError) as error:
        raise type(error)([replace(problem, key=problem.key or key) for problem in error.problems]) from error


def closest_hint(word: str, known: list[str]) -> str:
    """A hint that names the nearest known word; empty where none is near.

    Of words that only go on, the first: `stsb/spearman` is likelier `stsb/spearman_cosine` than the shorter `..._dot`.
    """
    near = [name for name in known if name.startswith(f"{word}_")] or get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else ""


def did_you_mean(word: str, known: list[str]) -> str:
    """A hint that names the nearest known word, or lists what is known when there are few."""
    if near := closest_hint(word, known):
        return near
    return f"known: {', '.join(known)}" if 0 < len(known) <= 30 else ""
