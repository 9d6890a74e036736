"""The diffs of the contributor's guide apply to the package, each with one mention, and what they add works."""

import json
import os
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pytest
from docs.conftest import README
from pyarrow import orc

ROOT = README.parent
GUIDE = (ROOT / "recipes" / "guides" / "contributing.md").read_text(encoding="utf-8")
DIFFS = dict(re.findall(r"^### (?:An? )([\w -]+)\n(?:(?!###).)*?```diff\n(.*?)```", GUIDE, re.DOTALL | re.MULTILINE))
RECIPE = """
name: extended
model: {base: %s, max_seq_length: 16, pooling: first_last}
data: {dataset: ./rows.orc, format: labeled_pair}
loss: {type: huber_cosine, delta: 0.2}
train: {max_steps: 2, batch_size: 4}
eval: [{type: alignment, dataset: ./rows.orc, columns: {anchor: sentence1, positive: sentence2}}]
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with all diffs applied."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "stfit", folder / "stfit", ignore=shutil.ignore_patterns("__pycache__"))
    for diff in DIFFS.values():
        subprocess.run(["git", "apply", "-p1", "-"], cwd=folder, input=diff, text=True, check=True)
    return folder


def stfit(extended, folder, *words):
    env = os.environ | {"PYTHONPATH": str(extended), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "stfit", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_there_is_a_diff_for_every_kind_of_addition():
    assert set(DIFFS) == {"loss", "evaluator", "pooling", "verb", "data-file format", "fused architecture"}
    for kind, diff in DIFFS.items():
        new, changed = diff.count("--- /dev/null"), diff.count("--- a/")
        assert new + changed <= 2, kind
        assert changed == 1, kind


@pytest.mark.slow
def test_what_the_diffs_add_trains_and_is_listed(extended, tiny_base, tmp_path):
    rows = [{"sentence1": f"a cat {i}", "sentence2": f"the sea {i}", "label": i / 8} for i in range(8)]
    table = pa.Table.from_pylist(rows)
    orc.write_table(table, str(tmp_path / "rows.orc"))
    (tmp_path / "texts.txt").write_text("a cat\nthe sea near the castle\n")
    from transformers import AutoTokenizer, MegatronBertConfig, MegatronBertModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_base("bert"))
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    MegatronBertModel(MegatronBertConfig(**sizes)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "recipe.yaml").write_text(RECIPE % "./base")
    result = json.loads(stfit(extended, tmp_path, "train", "recipe.yaml", "--json").stdout)
    assert result["metrics"]["rows/alignment"] <= 0
    resolved = (tmp_path / "runs" / "extended" / "resolved.yaml").read_text()
    assert re.search(r"attention: fused", resolved)
    assert re.search(r"first_last", resolved)
    lengths = json.loads(stfit(extended, tmp_path, "lengths", "runs/extended", "texts.txt", "--json").stdout)
    assert lengths["max"] >= lengths["p50"] > 2
    assert "lengths" in stfit(extended, tmp_path, "--help").stdout
