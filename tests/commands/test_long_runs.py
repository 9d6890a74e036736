"""The same recipe is the same bytes in every process, and a long run takes no more memory at its end than early on."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stfit.commands.train import train
from stfit.data.cache.tokens import MIN_CACHED_TEXTS
from stfit.events import StepInfo
from stfit.recipe.load import load_recipe


@pytest.mark.slow
def test_same_recipe_is_the_same_bytes_whatever_the_hash_seed_and_the_caches(tmp_path, write, promise):
    """The first two runs find no token cache, the others do."""
    recipe = write(data={"dataset": "./many.jsonl"}, train={"max_steps": 12, "batch_size": 1024})  # all rows
    count = MIN_CACHED_TEXTS // 2 + 1
    rows = [{"anchor": f"question {i}", "positive": f"answer {i * 7 % count}"} for i in range(count)]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = []
    for number, hash_seed in enumerate(["0", "1", "2", "3", "random"]):
        home = tmp_path / ("cold" if number == 0 else "warm")
        env = os.environ | {"PYTHONHASHSEED": hash_seed, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
        runs = tmp_path / f"runs{number}"
        command = [sys.executable, "-m", "stfit", "train", str(recipe), "--runs", str(runs)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made.append((runs / "tiny" / "model" / "model.safetensors").read_bytes())
    assert list((tmp_path / "warm").rglob("*.arrow"))
    equal = sum(one == made[0] for one in made)
    promise("same recipe, other PYTHONHASHSEED, cold and warm caches: same bytes", f"{equal}/{len(made)}")
    assert equal == len(made)


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.slow
def test_soak_of_two_thousand_steps(tmp_path, write, similarity, promise):
    """Evaluations and checkpoints included. The slope is that of the second half: allocators fill up first."""
    recipe = write(eval=[similarity], train={"max_steps": 2000, "save_every_steps": 100, "eval_every_steps": 100})
    sizes, files = [], []
    for event in train(load_recipe(recipe), tmp_path / "runs"):
        if isinstance(event, StepInfo) and event.step % 50 == 0:
            sizes.append((event.step, resident_mib()))
            files.append(len(os.listdir("/proc/self/fd")))
    late = np.array(sizes[len(sizes) // 2 :])
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0] * 1000)
    promise("2,000 steps: growth of memory in 1,000 of them", f"{slope:.2f} MiB")
    promise("2,000 steps: open files, half way and at the end", f"{files[len(files) // 2]} and {files[-1]}")
    assert slope < 1
    assert files[-1] <= files[len(files) // 2]
    assert len(list(Path(tmp_path / "runs" / "tiny" / "checkpoints").iterdir())) == 2
