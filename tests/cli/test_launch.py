"""Of several workers that failed, the root cause is reported."""

import signal
import sys

import pytest

from stfit.cli.launch import root_cause, safe_path_option
from stfit.errors import DataError, WorkerLostError

LOST = {
    "class": WorkerLostError.__name__,
    "message": "another process of this run was lost",
    "exit_code": WorkerLostError.exit_code,
}
WRONG = {"class": DataError.__name__, "message": "row 3 is wrong", "exit_code": DataError.exit_code}


def test_a_worker_that_wrote_an_error_is_not_the_one_that_was_killed():
    failure = root_cause({0: LOST}, {0: -signal.SIGABRT, 1: -signal.SIGKILL})
    assert failure is not None
    assert failure.message is not None
    assert failure.message.startswith("process 1 was killed by SIGKILL")


def test_an_error_comes_before_the_workers_that_were_lost_after_it():
    failure = root_cause({0: LOST, 1: WRONG}, {0: WorkerLostError.exit_code, 1: DataError.exit_code})
    assert failure == (DataError.__name__, "row 3 is wrong", DataError.exit_code)


@pytest.mark.parametrize(("first", "options"), [("/environment/bin", ["-P"]), ("", [])])
def test_workers_import_from_the_current_folder_only_if_their_parent_does(monkeypatch, first, options):
    monkeypatch.setattr(sys, "path", [first, *sys.path])
    assert safe_path_option() == options
