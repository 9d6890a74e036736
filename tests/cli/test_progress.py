"""Progress on a terminal and elsewhere."""

import os
import pty
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

import pytest

from stfit import progress
from stfit.cli.progress import SECONDS_PER_LINE, show_progress
from stfit.progress import task, track

ESCAPE = "\x1b["


def follow(steps: int) -> None:
    with show_progress(), task("training", steps, of_verb=True) as training:
        for step in range(1, steps + 1):
            training.update(step, f"step {step}/{steps}", seconds_left=steps - step)


@pytest.mark.parametrize(("steps", "lines"), [(3, 3), (20, 20), (1000, 20), (1003, 20)])
def test_without_a_terminal_at_most_twenty_lines_are_printed_and_the_last_step_has_one(steps, lines, capsys):
    follow(steps)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == lines
    assert printed[-1] == f"100%  step {steps}/{steps}"
    assert ESCAPE not in "".join(printed)


def test_a_line_says_the_time_that_is_left(capsys):
    follow(100)
    assert capsys.readouterr().err.splitlines()[0] == "  5%  step 5/100  0:01:35 left"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""
    now = [0.0]
    monkeypatch.setattr("stfit.progress.time.monotonic", lambda: now[0])
    return now


def test_a_long_step_prints_a_line_now_and_then_and_a_short_one_none(clock, capsys):
    with show_progress():
        for _ in track(range(3), "a short step"):
            clock[0] += SECONDS_PER_LINE / 10
        with task("evaluating dev"), task("embedding 10 texts", 10) as embedding:
            for _ in range(10):
                clock[0] += SECONDS_PER_LINE / 4.5
                embedding.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        " 50%  evaluating dev: embedding 10 texts  0:00:22 left",
        "100%  evaluating dev: embedding 10 texts",
    ]


def test_a_call_in_which_nothing_moves_prints_a_line(clock, capsys, monkeypatch):
    printed = threading.Event()
    monkeypatch.setattr("stfit.cli.progress.log_line", lambda line: printed.set() if "learning" in line else None)
    with show_progress(), task("learning a vocabulary"):
        clock[0] += SECONDS_PER_LINE + 1
        assert printed.wait(timeout=30)


def test_work_of_unknown_size_counts_what_is_done(clock, capsys):
    with show_progress(), task("reading rows.jsonl", unit="rows") as reading:
        clock[0] += SECONDS_PER_LINE + 1
        reading.advance(1_200_000)
    assert capsys.readouterr().err == "reading rows.jsonl, 1,200,000 rows\n"


def test_tasks_end_with_their_blocks_and_those_of_other_threads_are_not_shown():
    with suppress(ValueError), task("outer"), task("inner"):
        worker = threading.Thread(target=lambda: list(track([1], "elsewhere")))
        worker.start()
        worker.join()
        assert [each.doing for each in progress.tasks] == ["outer", "inner"]
        raise ValueError
    assert progress.tasks == []


SCRIPT = """
import logging, sys
from stfit.cli.console import log_line
from stfit.cli.progress import show_progress
from stfit.progress import task
with show_progress(), task("step 1/2  and more than any narrow window has room for", 2, of_verb=True) as training:
    training.update(1)
    log_line("something to know")
    training.update(2)
    if "fail" in sys.argv:
        raise SystemExit(6)
print("result", file=sys.stderr)
"""


def on_terminal(columns: int, *arguments: str) -> tuple[int, str]:
    """Exit code and output of SCRIPT on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    env: dict[str, Any] = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
    child = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=env | {"COLUMNS": str(columns), "TERM": "xterm"},
        stderr=theirs,
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 4096):
            output += chunk
    except OSError:  # Linux's end of a terminal without a writer
        pass
    os.close(ours)
    return child.returncode, output.decode()


@pytest.mark.parametrize("columns", [10, 40, 200])
def test_log_lines_stay_above_the_bar(columns):
    code, output = on_terminal(columns)
    assert code == 0
    assert ("something to know" in output) == (columns > 20)


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["fail"], 6)])
def test_the_bar_is_removed_when_the_command_ends(arguments, code):
    found, output = on_terminal(80, *arguments)
    assert found == code
    assert output.removesuffix("result\r\n").endswith(("\x1b[1A\x1b[2K", "\x1b[2K"))
