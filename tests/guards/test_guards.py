"""The suite can fail."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_guard_that_is_switched_off_turns_a_test_red(promise):
    script = Path(__file__).parent / "switch_off.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    promise("guards switched off one by one, each turns a test red", done.stdout.splitlines()[-1])
