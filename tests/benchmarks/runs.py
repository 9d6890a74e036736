"""What the benchmarks share: where the real data is, and one run as a subprocess."""

import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import psutil

MODEL = "models/plain-minilm-l6-h384"


def find_shared() -> Path:
    """The folder with data, models and the sentence-transformers script. Exits with a message if it is missing."""
    if not find_spec("sentence_transformers"):
        sys.exit('sentence-transformers is not installed: pip install "stfit[sentence-transformers]"')
    shared = os.environ.get("STFIT_SHARED")
    if not shared:
        sys.exit("STFIT_SHARED must name the folder with data, models and the sentence-transformers script")
    return Path(shared)


def read_lines(path: Path) -> list[dict]:
    """The rows of a compressed JSON Lines file."""
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def kept_lines(path: Path) -> list[dict]:
    """What was measured before, by this machine or another."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def where_and_when() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = round(psutil.virtual_memory().total / 2**30)
    machine = f"{found[0] if found else platform.machine()} ({os.cpu_count()} cores, {memory} GiB)"
    return {"machine": machine, "day": str(date.today())}


def run_json(command: list[str], first_step: str | None = None) -> dict:
    """The JSON object that a command prints last, with its `wall_seconds` and `processor_seconds`.

    Leaves with its stderr where it fails.

    `first_step_seconds` beside it: when the first line of stderr came that holds `first_step`.
    """
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    marks, said = [], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or []:
            said.append(line)
            if first_step and first_step in line:
                marks.append(time.perf_counter() - start)
        stdout = process.stdout.read() if process.stdout else ""
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{''.join(said)}")
    at = stdout.find("{") if stdout.startswith("{\n") else stdout.rfind("\n{") + 1
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = {
        "wall_seconds": time.perf_counter() - start,
        "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "first_step_seconds": marks[0] if marks else None,
    }
    return {**json.loads(stdout[at:]), **times}
