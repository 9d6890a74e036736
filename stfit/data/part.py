"""One of several parts of the rows of a dataset, each encoded by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from stfit.errors import DataError, RecipeError
from stfit.io.atomic import wrap_os_errors


@dataclass(frozen=True)
class Part:
    number: int
    """From 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of `2/8`. Raises RecipeError."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise RecipeError(f"--part {text}: write i/N, such as 2/8, with i from 1 to N")
        return cls(int(number), int(count))

    def share_of(self, total: int) -> range:
        """Of so many rows or bytes: the shares of all parts follow each other, and are together the whole."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)

    @property
    def file_stem(self) -> str:
        return f"part-{self.number:05d}-of-{self.count:05d}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def rows_file(output: Path, part: Part | None) -> Path:
    """Where rows are written: `output` or, of a part, a file of its own in that folder. Raises RecipeError."""
    if part is None:
        if output.suffix != ".jsonl":
            raise RecipeError(f"{output}: the output must be a .jsonl file")
        return output
    if output.suffix == ".jsonl":
        raise RecipeError(f"{output}: the output of a part is a folder, which will hold a file of each part")
    with wrap_os_errors(output):
        output.mkdir(exist_ok=True)
    return output / f"{part.file_stem}.jsonl"


@contextmanager
def rows_counted_from(part: Part | None) -> Iterator[None]:
    """What precedes a part is not read, so errors number its rows from its first one, and say so."""
    try:
        yield
    except DataError as error:
        if part is None:
            raise
        counted = f" (rows and lines are counted from the first of part {part})"
        raise DataError([replace(problem, message=problem.message + counted) for problem in error.problems]) from error
