"""How far a command is, on a terminal and elsewhere."""

import pytest

from stfit.cli import live_line
from stfit.cli.live_line import CLEAR, LiveLine, say


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of 40 columns."""
    monkeypatch.setattr(live_line, "is_watched", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")


def follow(steps: int) -> None:
    line = LiveLine()
    for step in range(1, steps + 1):
        line.show(f"step {step}/{steps}  and more than any narrow window has room for", step / steps)
    line.close()


def test_a_live_line_is_never_wider_than_its_window(terminal, capsys):
    follow(steps=7)
    first, *shown, last = capsys.readouterr().err.split(CLEAR)
    assert (first, last) == ("", "")
    assert len(shown) == 7
    assert all(0 < len(text) < 40 and "\n" not in text for text in shown)


def test_a_line_that_stays_takes_the_place_of_the_live_one(terminal, capsys):
    LiveLine().show("loss 1.0", 0.5)
    say("something to know")
    assert capsys.readouterr().err == f"{CLEAR} 50%  loss 1.0{CLEAR}something to know\n"


@pytest.mark.parametrize(("steps", "lines"), [(3, 3), (20, 20), (1000, 20), (1003, 20)])
def test_elsewhere_there_are_at_most_twenty_lines_and_the_last_step_has_one(steps, lines, capsys):
    follow(steps)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == lines
    assert "100%" in shown[-1]
    assert live_line.CLEAR not in "".join(shown)


def test_work_of_unknown_size_is_said_after_a_while(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 31.0, 40.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    line = LiveLine()
    for rows in (1, 2, 3):
        line.show(f"{rows} rows", None)
    assert capsys.readouterr().err == "2 rows\n"


def test_time_left_is_that_of_the_pace_so_far(monkeypatch, capsys):
    clock = iter([0.0, 5.0, 6.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    line = LiveLine()
    line.show("a", 0.1)
    line.show("b", 0.2)
    assert capsys.readouterr().err == " 10%  a\n 20%  0:08 left  b\n"
