"""stdout and stderr as users have them: closed, full, read by nobody, or without a character that is printed.

stdout gets the result: if it can't be written, the command ends with an error, and its work is kept. What can't be
written on stderr is dropped: a training must outlive its terminal.
"""

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stfit.errors import ResourceError

SIGPIPE_EXIT = 141
"""Of a Unix tool whose reader has left: 128 + SIGPIPE."""
PLAIN = {"↑": "^", "↓": "v", "→": "->", "…": "...", "—": "-", "•": "*"}
ERRORS = "stfit-plain"


class ReaderLeftError(Exception):
    """Who reads stdout has closed it, as `head` does. No error of the user: nothing is said."""


def prepare_streams() -> None:
    """To be called first: a file opened later would otherwise get the number of a closed stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    codecs.register_error(ERRORS, _without_characters)
    for name, kind in {"stdin": io.TextIOWrapper, "stdout": _Output, "stderr": _Messages}.items():
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and name != "stdin":
            buffering = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            setattr(sys, name, kind(stream.buffer, stream.encoding, ERRORS, **buffering))
        elif name != "stdin":
            stream.reconfigure(errors=ERRORS)


def _without_characters(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that the encoding of a stream lacks: a plain one, a letter's base, or its code."""
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    plain = "".join(PLAIN.get(char) or _base_letter(char) for char in lost)
    return plain, error.end


def _base_letter(char: str) -> str:
    base = unicodedata.normalize("NFKD", char)[0]
    return base if base.isascii() else char.encode("ascii", "backslashreplace").decode()


class _Output(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        if text == "":  # click tries a stream with it, and swallows the error
            return 0
        with _redirected_after_error():
            return super().write(text)

    def flush(self) -> None:
        with _redirected_after_error():
            super().flush()


@contextmanager
def _redirected_after_error() -> Iterator[None]:
    """An error is raised once: what is still in the buffer goes nowhere."""
    try:
        yield
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            raise ReaderLeftError from error
        raise ResourceError(f"the result can't be printed: {error.strerror}; the work itself is done") from error


class _Messages(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()
