"""The suite can fail."""

import subprocess
import sys
from pathlib import Path

import pytest
from guards.switch_off import GUARDS, ROOT


def test_every_guard_stands_in_the_package():
    """So that a guard that is rewritten is rewritten in the list too."""
    missing = [guard.name for guard in GUARDS if (ROOT / "stfit" / guard.file).read_text().count(guard.on) != 1]
    assert missing == []


@pytest.mark.slow
def test_every_guard_that_is_switched_off_turns_a_test_red(promise):
    script = Path(__file__).parent / "switch_off.py"
    process = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    promise("guards switched off one by one, each turns a test red", process.stdout.splitlines()[-1])
