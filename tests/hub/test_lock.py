"""What moved on the Hub since a training is said, or makes no new training."""

import json
import shutil

import pytest
from hub.conftest import ROWS, lines

pytestmark = pytest.mark.slow


def test_a_dataset_that_moved_is_drift_and_its_locked_commit_is_not(filled, stfit, tmp_path):
    assert stfit("train recipe.yaml").returncode == 0
    lock = tmp_path / "stfit.lock"
    shutil.copy(tmp_path / "runs/recipe/stfit.lock", lock)
    assert stfit("train recipe.yaml --locked --runs again").returncode == 0
    data = filled.state.repositories["dataset", "me/rows"]
    old, new = data.head.oid, data.put({"data/train-00001-of-00002.jsonl": lines(ROWS[3:9])}).oid
    ended = stfit("train recipe.yaml --locked --runs other --json")
    assert ended.returncode == 8, ended.stderr
    message = json.loads(ended.stdout)["error"]["message"]
    assert f"data.0.commit: '{old}' -> '{new}'" in message
    assert "data.0.rows: 40 -> 26" in message
    assert not (tmp_path / "other/recipe/model").exists()
    ended = stfit(f"train recipe.yaml data.revision={old} --locked {lock} --runs other")
    assert ended.returncode == 0, ended.stderr


def test_a_training_that_would_publish_the_same_again_is_skipped(filled, stfit, tmp_path):
    first = stfit("train recipe.yaml --skip-unchanged")
    assert first.returncode == 0, first.stderr
    assert "nothing to do" not in first.stderr
    pushed = stfit("push runs/recipe")
    assert pushed.returncode == 0, pushed.stderr
    published = filled.state.repositories["model", "me/published"]
    published.put({"notes.md": b"what people add is no new training"})
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(tmp_path / "home")
    requests_before = len(filled.log)
    ended = stfit("train recipe.yaml --skip-unchanged --json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"unchanged": True, "repo": "me/published", "commit": published.head.oid}
    assert not [
        request for request in filled.log[requests_before:] if "jsonl" in request.path or "safetensors" in request.path
    ]

    data = filled.state.repositories["dataset", "me/rows"]
    data.put({"LICENSE": b"free"})
    assert "nothing to do" in stfit("train recipe.yaml --skip-unchanged").stderr
    assert "nothing to do" not in stfit("train recipe.yaml --skip-unchanged train.max_steps=1").stderr
    data.put({"data/train-00001-of-00002.jsonl": lines(ROWS[3:9])})
    changed = stfit("train recipe.yaml --skip-unchanged --json")
    assert json.loads(changed.stdout)["steps"] == 2
