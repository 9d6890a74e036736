"""stfit works on systems that lack what Linux has."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).parents[2] / "stfit"
ONE_FILE = PACKAGE / "runtime" / "system.py"
OF_ONE_SYSTEM = {"fcntl", "resource", "pwd", "grp", "termios", "msvcrt", "winreg", "ctypes"}
QUESTIONS = {"sys.platform", "os.name", "platform.system", "os.uname", "signal.SIGKILL", "signal.SIGHUP", "os.fork"}
QUESTIONS |= {"os.kill", "os.sched_getaffinity", "os.sysconf", "os.getuid"}


def asked_of_the_system(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & OF_ONE_SYSTEM
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} & OF_ONE_SYSTEM
        elif isinstance(node, ast.Attribute):
            found |= {ast.unparse(node)} & QUESTIONS
    return found


def test_one_file_knows_what_system_it_runs_on() -> None:
    asked = {str(path): asked_of_the_system(path) for path in PACKAGE.rglob("*.py") if path != ONE_FILE}
    assert {path: names for path, names in asked.items() if names} == {}
    assert asked_of_the_system(ONE_FILE)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["macos", "windows"])
def test_a_training_is_resumed_encoded_with_and_published(system, tmp_path, hub, tiny_base) -> None:
    rows = [{"anchor": f"question {i} about {i % 7}", "positive": f"answer {i} on {i % 7}"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "texts.txt").write_text("one text\nanother text\n")
    recipe = {
        "model": {"base": str(tiny_base("bert"))},
        "data": {"dataset": "./rows.jsonl", "format": "positive_pair"},
        "loss": "multiple_negatives_ranking",
        "train": {"epochs": 1, "batch_size": 8, "save_every_steps": 2},
        "push": {"repo": "me/published"},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_me", "HF_HOME": str(tmp_path / "home")}
    script = Path(__file__).with_name("other_systems.py")

    def stfit(*commands: str) -> str:
        arguments = [sys.executable, script, system, *" + ".join(commands).split()]
        ended = subprocess.run(
            arguments, cwd=tmp_path, env=environment | {"HF_HUB_OFFLINE": "0"}, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stderr

    stfit("train recipe.yaml")
    (tmp_path / "runs" / "recipe" / "result.json").unlink()  # as if it had been killed
    messages = stfit("train recipe.yaml", "encode runs/recipe texts.txt -o vectors.npy", "push runs/recipe", "runs")
    assert "resuming after step" in messages
    assert np.load(tmp_path / "vectors.npy").shape == (2, 32)
    result = json.loads((tmp_path / "runs" / "recipe" / "result.json").read_text())["result"]
    assert (result["steps"], "cores" in result["hardware"]) == (5, True)
    assert (result["peak_rss_mib"] == 123) == (system == "windows")
    assert "model.safetensors" in hub.state.repositories["model", "me/published"].head.files
