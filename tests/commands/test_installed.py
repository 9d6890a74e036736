"""What an installed package adds is a choice like any other; a broken one is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

INSTALLED = Path(__file__).parents[1] / "installed"
ROWS = {"dataset": "./rows.jsonl", "format": "positive_pair"}


@pytest.fixture
def stfit(tmp_path):
    """Runs stfit in a process that sees a package folder; exit code, stdout, stderr."""

    def run(folder, *arguments):
        paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        ended = subprocess.run(
            [sys.executable, "-m", "stfit", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return run


@pytest.mark.slow
def test_losses_and_evaluator_of_an_installed_package_train_and_measure(write, stfit, tmp_path):
    path = write(
        data=None,
        loss=None,
        objectives=[
            {"data": ROWS, "loss": {"type": "align_and_uniform", "uniformity": 0.5}},
            {"data": ROWS | {"format": "labeled_text"}, "loss": "prototypes"},
        ],
        eval=[{"type": "alignment", "name": "near", "dataset": "./rows.jsonl", "split": "train"}],
    )
    code, out, err = stfit(INSTALLED, "train", path, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["baseline"]["near/alignment"] != result["metrics"]["near/alignment"]
    assert "uniformity: 0.5" in (tmp_path / "runs" / "tiny" / "resolved.yaml").read_text()
    code, _, err = stfit(INSTALLED, "check", path, "objectives.0.loss.uniformity=-1")
    assert code == 2
    assert "`objectives.0.loss.uniformity`: expected at least 0" in err
    code, _, err = stfit(INSTALLED, "check", path, "objectives.0.loss=align_and_uniforn")
    assert "did you mean `align_and_uniform`?" in err


@pytest.mark.slow
def test_pooling_of_an_installed_package_is_trained_saved_and_needed_to_load(write, stfit, tmp_path):
    path = write(model={"pooling": ["mean", "top_two"]})
    code, _, err = stfit(INSTALLED, "train", path)
    assert code == 0, err
    (tmp_path / "texts.txt").write_text("the cat is number 0\n")
    encode = ["encode", "runs/tiny", "texts.txt", "-o", "embeddings.npy"]
    code, _, err = stfit(INSTALLED, *encode)
    assert code == 0, err
    assert np.load(tmp_path / "embeddings.npy").shape == (1, 32)
    code, _, err = stfit(tmp_path, *encode)
    assert code == 4
    assert "unknown pooling top_two" in err


@pytest.mark.slow
def test_without_the_package_its_choice_is_unknown(write, stfit, tmp_path):
    code, _, err = stfit(tmp_path, "check", write(loss="align_and_uniform"))
    assert code == 2
    assert "`loss`: unknown choice `align_and_uniform`" in err


BROKEN = {
    "loss.broken = nowhere:Loss": "`loss.broken` to stfit.choices, but nowhere:Loss can't be loaded (ModuleNotFound",
    "loss.broken = json:loads": "json:loads is not a subclass of LossBase with a `type`",
    "evaluator.broken = stfit.evaluation.base:EvaluatorBase": "is not a subclass of EvaluatorBase with a `type`",
    "tracker.broken = stfit.encoder.layers:Normalize": "has no `package`, has no `start`",
    "loss.again = stfit.losses.triplets:Triplet": "several packages add the choice `triplet`",
}


@pytest.mark.slow
@pytest.mark.parametrize("entry", BROKEN)
def test_package_whose_choice_can_not_be_used_is_named(write, stfit, tmp_path, entry):
    folder = tmp_path / "packages" / "stfit_wrong-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stfit-wrong\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[stfit.choices]\n{entry}\n")
    code, _, err = stfit(folder.parent, "check", write())
    assert code == 2
    assert BROKEN[entry] in err
    assert "triplet" in entry or "the package `stfit-wrong`" in err


WEIGHTS = {"data": ROWS | {"format": "labeled_text"}, "loss": "prototypes"}


@pytest.mark.slow
def test_a_loss_with_weights_is_checked_as_softmax_is(write, stfit):
    code, _, err = stfit(INSTALLED, "check", write(**WEIGHTS), "loss.matryoshka_dims=[16, 8]")
    assert code == 2
    assert "loss.matryoshka_dims: `prototypes` has weights of its own, which fit whole embeddings" in err
    stream = ["data.streaming=true", "model.base=./base"]
    code, _, err = stfit(INSTALLED, "check", write(**WEIGHTS), *stream)
    assert "loss `prototypes` has weights for each class, and the classes of a stream are not known" in err


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("verb", "method", "message"),
    [
        ("check", "build(self, dim): pass", "has a `build` that does not take (embedding_dim, num_classes)"),
        ("check", "__call__(self, columns): pass", "has a `__call__` that does not take (columns, label)"),
        ("train", "__call__(self, columns, label): return self.no", "This is a bug in the package `stfit-wrong`"),
        pytest.param("train", "build(self, a, b): return None", "its `build` returns None, which can't", marks=slow),
        pytest.param("train", "build(self, a, b): return 1 / 0", "bug in the package `stfit-wrong`", marks=slow),
        pytest.param("train", "__call__(self, a, b): return a['text']", "a tensor of one number", marks=slow),
    ],
)
def test_a_bug_of_a_package_is_not_called_one_of_stfit(write, stfit, tmp_path, verb, method, message):
    folder = tmp_path / "packages" / "stfit_wrong-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stfit-wrong\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[stfit.choices]\nloss.wrong = stfit_wrong:Wrong\n")
    (folder.parent / "stfit_wrong.py").write_text(
        "from typing import Literal\nfrom stfit.losses.base import Accepts, LossBase\n\n\nclass Wrong(LossBase):\n"
        "    fits = (Accepts('labeled_text', 'class'),)\n    type: Literal['wrong'] = 'wrong'\n\n"
        f"    def {method}\n"
    )
    code, _, err = stfit(folder.parent, verb, write(**WEIGHTS | {"loss": "wrong"}))
    assert code == 2
    assert message in err
    assert "bug in stfit" not in err
