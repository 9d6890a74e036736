"""The peak that is told is that of the process, not of the program that started it."""

import subprocess
import sys

from stfit.runtime.system import peak_memory

SCRIPT = """
from stfit.runtime.system import peak_memory
print(peak_memory())
large = b"1" * (300 << 20)
print(peak_memory())
"""


def test_peak_memory_is_that_of_this_process_alone():
    large = bytearray(b"\1" * (400 << 20))
    assert peak_memory() > len(large)
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    before, after = map(int, told.split())
    assert before < 200 << 20
    assert after - before > 250 << 20
