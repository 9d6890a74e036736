"""Of several processes that failed, the one that began it is named."""

import signal
import sys

import pytest

from stfit.cli.launch import explain, import_path
from stfit.errors import DataError, WorkerLostError

LOST = {
    "class": WorkerLostError.__name__,
    "message": "another process of this run is gone",
    "exit_code": WorkerLostError.exit_code,
}
WRONG = {"class": DataError.__name__, "message": "row 3 is wrong", "exit_code": DataError.exit_code}


def test_process_that_could_still_speak_is_not_named_as_the_one_that_was_killed():
    found = explain({0: LOST}, {0: -signal.SIGABRT, 1: -signal.SIGKILL})
    assert found is not None
    assert found.message is not None
    assert found.message.startswith("process 1 was killed by SIGKILL")


def test_error_of_its_own_comes_before_the_peers_that_it_left():
    found = explain({0: LOST, 1: WRONG}, {0: WorkerLostError.exit_code, 1: DataError.exit_code})
    assert found == (DataError.__name__, "row 3 is wrong", DataError.exit_code)


@pytest.mark.parametrize(("first", "options"), [("/environment/bin", ["-P"]), ("", [])])
def test_processes_import_from_the_current_folder_only_where_who_starts_them_does(monkeypatch, first, options):
    monkeypatch.setattr(sys, "path", [first, *sys.path])
    assert import_path() == options
