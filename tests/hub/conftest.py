import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from hub.repository import files_in
from hub.server import Server

ROWS = [{"anchor": f"question number {i}", "positive": f"answer number {i}"} for i in range(40)]
README = b"""---
configs:
- config_name: pairs
  data_files: [{split: train, path: data/train-*}, {split: test, path: data/test*}]
- config_name: other
  data_files: [{split: train, path: other/rows.jsonl}]
---
"""
RECIPE = """
model: {base: me/base}
data: {dataset: me/rows, config: pairs, format: positive_pair}
loss: multiple_negatives_ranking
train: {max_steps: 2, batch_size: 8}
eval: [{type: similarity, dataset: team/scored, split: train, columns: {label: score}}]
push: {repo: published}
"""

Stfit = Callable[..., subprocess.CompletedProcess[str]]


def lines(rows: list[dict]) -> bytes:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def filled(hub, tiny_base) -> Server:
    """The Hub with a base, a dataset of two configurations, and a private, scored one."""
    hub.state.create("model", "me/base", files_in(tiny_base("bert")))
    shards = {f"data/train-0000{i}-of-00002.jsonl": lines(ROWS[i::2]) for i in range(2)}
    hub.state.create(
        "dataset",
        "me/rows",
        {"README.md": README, **shards, "data/test.jsonl": lines(ROWS[:5]), "other/rows.jsonl": lines(ROWS[:7])},
    )
    scored = [{"sentence1": row["anchor"], "sentence2": row["positive"], "score": i / 40} for i, row in enumerate(ROWS)]
    hub.state.create("dataset", "team/scored", {"train.jsonl": lines(scored)}, private=True)
    return hub


@pytest.fixture
def stfit(filled, tmp_path) -> Stfit:
    """Runs a command line against the Hub, by default with the token of `me`."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(line: str, token: str | None = "hf_me", shell: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        variables = filled.env(tmp_path / "home", token) | {"OMP_NUM_THREADS": "1"} | env
        command = [sys.executable, "-m", "stfit", *line.split()]
        if shell:  # as root of a name space of mounts
            command = ["unshare", "--mount", "sh", "-c", f'{shell} && exec "$0" "$@"', *command]
        return subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True)

    return run
