"""Saved folders mean the same to transformers 4 with sentence-transformers 3 and 5, with which many servers read."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_bases import BUILDERS, SENTENCES, WITHOUT_PADDING

from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.save import save_encoder

pytestmark = pytest.mark.slow

TRANSFORMERS_4 = ["transformers==4.57.*", "tokenizers>=0.22,<=0.23", "huggingface_hub<1", "datasets==3.6.*"]
ONLY_IN_5 = {"qwen3-bidirectional"}
"""transformers 4 ignores `is_causal` in the config of Qwen3."""
EMBED = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer
folders, sentences, output = json.load(sys.stdin)
models = {name: SentenceTransformer(folder, device="cpu") for name, folder in folders.items()}
np.savez(output, **{name: model.encode(sentences, show_progress_bar=False) for name, model in models.items()})
"""


@pytest.fixture(scope="module", params=["3.4.*", "5.2.*"])
def older(request, tmp_path_factory):
    """Environment variables of a Python with older packages before the installed ones."""
    folder = tmp_path_factory.mktemp("older")
    packages = [*TRANSFORMERS_4, f"sentence-transformers=={request.param}"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *packages]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        pytest.skip(f"can't be installed here: {ended.stderr[-300:]}")
    return os.environ | {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def saved(tiny_base, tmp_path_factory):
    """Architecture -> folder of a saved model, and its embeddings."""
    models = {}
    for kind in sorted({*BUILDERS, *WITHOUT_PADDING} - ONLY_IN_5):
        layers = [{"type": "dense", "out_features": 16}, {"type": "normalize"}]
        encoder = build_encoder(Model.model_validate({"base": str(tiny_base(kind)), "layers": layers}))
        folder = tmp_path_factory.mktemp(kind) / "model"
        save_encoder(encoder, folder)
        models[kind] = folder, encoder.encode(SENTENCES)
    return models


def test_older_versions_give_the_same_embeddings(older, saved, tmp_path) -> None:
    folders = {kind: str(folder) for kind, (folder, _) in saved.items()}
    request = json.dumps([folders, SENTENCES, str(tmp_path / "theirs.npz")])
    ended = subprocess.run([sys.executable, "-c", EMBED], input=request, env=older, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    theirs = np.load(tmp_path / "theirs.npz")
    cosines = {kind: float((theirs[kind] * ours).sum(axis=1).min()) for kind, (_, ours) in saved.items()}
    assert {kind: cosine for kind, cosine in cosines.items() if cosine < 0.99999} == {}
