"""The exceptions that stfit raises, with their exit codes.

BaseException
├── Exception
│   └── StfitError                 1  a bug, if nothing more specific applies
│       ├── RecipeError            2  the recipe or the command line is invalid by itself
│       ├── DataError              3  rows, columns or splits do not match the recipe
│       ├── ModelError             4  a base model or model folder can't be used
│       ├── HubError               5  the Hub can't be reached, or refuses the request
│       ├── EndpointError          5  the same of a server that writes questions
│       ├── DivergedError          6  loss, gradient or weights are not finite
│       ├── GateError              7  the model does not pass its gate
│       ├── LockError              8  something changed since the lock was written
│       └── ResourceError          9  no disk space or memory, or a folder is in use
│           └── WorkerLostError    9  another process of this run was lost
└── InterruptedRun     129, 130, 143  stopped by SIGHUP, SIGINT or SIGTERM; the run can resume
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches

MAX_SHOWN = 6
"""Known words that a message shows at once."""


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
    """The recipe key it is about, relative to the data section: `split`, `columns.anchor`."""

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n{self.snippet}" if self.snippet else text

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("snippet", "key")}


class StfitError(Exception):
    """Shown to the user without a traceback: one message, or a list of problems found together."""

    exit_code = 1
    code = "error"
    """Code of a problem that is given as a message only."""

    def __init__(self, message: str | Problem | list[Problem]) -> None:
        messages = message if isinstance(message, list) else [message]
        self.problems = [Problem(item, self.code) if isinstance(item, str) else item for item in messages]
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecipeError(StfitError):
    """The recipe or an argument is invalid; raised before any data is read."""

    exit_code = 2
    code = "recipe"


class DataError(StfitError):
    """The data does not match the recipe."""

    exit_code = 3
    code = "data"


class ModelError(StfitError):
    """A base model or a model folder can't be used."""

    exit_code = 4
    code = "model"


class HubError(StfitError):
    """The Hub can't be reached, or refuses the request."""

    exit_code = 5
    code = "hub"


class EndpointError(StfitError):
    """A server that writes questions can't be reached, or refuses the requests."""

    exit_code = 5
    code = "endpoint"


class DivergedError(StfitError):
    """Training stopped because a number is not finite."""

    exit_code = 6


class GateError(StfitError):
    """The model does not pass its gate."""

    exit_code = 7


class LockError(StfitError):
    """Something that the lock pins has changed."""

    exit_code = 8


class ResourceError(StfitError):
    """The disk is full, memory ran out, or a folder is in use."""

    exit_code = 9
    code = "resource"


class WorkerLostError(ResourceError):
    """Another process of this run was lost; report the error that it met instead of this one."""


class InterruptedRun(BaseException):
    """Not an Exception, like KeyboardInterrupt, so that libraries neither retry nor convert it."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


@contextmanager
def at_key(key: str) -> Iterator[None]:
    """Set the key, of the data or the model section, of problems that the block raises without one."""
    try:
        yield
    except (RecipeError, DataError, ModelError) as error:
        raise type(error)([replace(problem, key=problem.key or key) for problem in error.problems]) from error


def closest_hint(word: str, known: list[str]) -> str:
    """Prefers a word that continues `word`: for `stsb/spearman`, `stsb/spearman_cosine` to the shorter `..._dot`."""
    matches = [name for name in known if name.startswith(f"{word}_")] or get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean `{matches[0]}`?" if matches else ""


def overflow_advice(precision: str) -> str:
    """What to do about numbers that are not finite; `precision`: that of the products."""
    if precision == "float16":
        return "float16 overflows at 65504: set train.precision to bfloat16 or float32"
    return "Lower train.learning_rate"


def did_you_mean(word: str, known: list[str]) -> str:
    """A hint that names the closest known word, or lists the known words if they are few."""
    return closest_hint(word, known) or (f"known: {', '.join(known)}" if 0 < len(known) <= 30 else "")
