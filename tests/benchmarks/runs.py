"""What the benchmarks share: where the real data is, and one run as a subprocess."""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

MODEL = "models/plain-minilm-l6-h384"


def find_shared() -> Path:
    """The folder with data, models and the peer's script; leaves with a message where that or the peer is missing."""
    if not find_spec("sentence_transformers"):
        sys.exit('the peer is not installed: pip install "stfit[peer]"')
    shared = os.environ.get("STFIT_SHARED")
    if not shared:
        sys.exit("STFIT_SHARED has to name the folder with the data, the models and the peer's script")
    return Path(shared)


def run_json(command: list[str]) -> dict:
    """The JSON object that a command prints last, with its `wall_seconds`; leaves with its stderr where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    at = done.stdout.find("{") if done.stdout.startswith("{\n") else done.stdout.rfind("\n{") + 1
    return {**json.loads(done.stdout[at:]), "wall_seconds": time.perf_counter() - start}
