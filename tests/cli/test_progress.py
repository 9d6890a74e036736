"""Progress on a terminal and elsewhere."""

import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from stfit.cli.progress import show_progress

ESCAPE = "\x1b["


def follow(steps: int) -> None:
    with show_progress() as update:
        for step in range(1, steps + 1):
            update(f"step {step}/{steps}", step / steps)


@pytest.mark.parametrize(("steps", "lines"), [(3, 3), (20, 20), (1000, 20), (1003, 20)])
def test_without_a_terminal_at_most_twenty_lines_are_printed_and_the_last_step_has_one(steps, lines, capsys):
    follow(steps)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == lines
    assert printed[-1] == f"100%  step {steps}/{steps}"
    assert ESCAPE not in "".join(printed)


def test_work_of_unknown_size_prints_a_line_every_thirty_seconds(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 31.0, 40.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with show_progress() as update:
        for rows in (1, 2, 3):
            update(f"{rows} rows", None)
    assert capsys.readouterr().err == "2 rows\n"


SCRIPT = """
import logging, sys
from stfit.cli.console import log_line
from stfit.cli.progress import show_progress
with show_progress() as update:
    update("step 1/2  and more than any narrow window has room for", 0.5)
    log_line("something to know")
    update("step 2/2", None)
    if "fail" in sys.argv:
        raise SystemExit(6)
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


def test_the_bar_is_removed_when_the_command_fails():
    code, output = on_terminal(80, "fail")
    assert code == 6
    assert output.endswith("\x1b[1A\x1b[2K") or output.endswith("\x1b[2K")
