"""The command line starts without what transformers imports and never uses, and computes the same."""

import json
import subprocess
import sys

import numpy as np
import pytest
import transformers
from packaging import version

from stfit.encoder.build import load_encoder

UNUSED = ["sympy", "scipy.optimize", "torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp"]
QUICK = ["bert", "mpnet", "t5"]
ROTARY = ["qwen3", "modernbert"]
TEXTS = ["a cat sat", "the rain in the north will last for some days", "no"]

ENCODE = """
import json, sys
from stfit.cli.quick_imports import defer_imports
defer_imports()
from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
folders, texts, attention = json.loads(sys.argv[1])
encoded = [build_encoder(Model(base=folder, attention=attention)).encode(texts).tolist() for folder in folders]
"""
IMPORTED = f"print(json.dumps([encoded, [name for name in {UNUSED} if name in sys.modules]]))"
REAL = """
import torch
from scipy.optimize import linear_sum_assignment
from torch.distributed.tensor import DTensor
assert linear_sum_assignment([[1.0]])[0].tolist() == [0] and isinstance(DTensor, type)
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
print(json.dumps([encoded, torch._dynamo.__file__]))
"""
ADAPTED = """
from stfit.encoder.lora import Lora, adapted_linears
adapted = build_encoder(Model(base=folders[0], lora=Lora(rank=2)))
print(int(bool(adapted_linears(adapted.backbone))))
"""


def run_script(script, *arguments):
    process = subprocess.run([sys.executable, "-c", script, json.dumps(arguments)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("kinds", "attention"), [(QUICK, "auto"), ([*QUICK, *ROTARY], "padded")])
def test_nothing_that_is_unused_is_imported_and_the_embeddings_are_the_same(tiny_base, kinds, attention):
    folders = [str(tiny_base(kind)) for kind in kinds]
    encoded, imported = run_script(ENCODE + IMPORTED, folders, TEXTS, attention)
    for folder, embeddings in zip(folders, encoded, strict=True):
        np.testing.assert_allclose(embeddings, load_encoder(folder).encode(TEXTS), atol=1e-5)
    if kinds == QUICK and version.parse(transformers.__version__) >= version.parse("5.24"):
        assert imported == []


@pytest.mark.slow
def test_what_was_left_out_can_be_used_afterwards(tiny_base):
    _, file = run_script(ENCODE + REAL, [str(tiny_base("bert"))], TEXTS, "auto")
    assert file.endswith("__init__.py")


SAVED = """
from pathlib import Path
from stfit.encoder.folder.save import save_encoder
save_encoder(build_encoder(Model(base=folders[0])), Path(texts[0]))
print(json.dumps(["torch._dynamo" in sys.modules, "accelerate" in sys.modules]))
"""


@pytest.mark.slow
def test_a_model_is_saved_without_the_compiler(tiny_base, tmp_path):
    pytest.importorskip("accelerate")  # which transformers asks whether a model is compiled
    assert run_script(ENCODE + SAVED, [str(tiny_base("bert"))], [str(tmp_path / "saved")], "auto") == [False, False]
    np.testing.assert_array_equal(
        load_encoder(tmp_path / "saved").encode(TEXTS), load_encoder(tiny_base("bert")).encode(TEXTS)
    )


@pytest.mark.slow
def test_adapters_can_be_added(tiny_base):
    pytest.importorskip("peft", reason="pip install stfit[lora]")
    assert run_script(ENCODE + ADAPTED, [str(tiny_base("bert"))], TEXTS, "auto") == 1
