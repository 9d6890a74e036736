"""Only the files of a model are published."""

import os
import shutil

import pytest

from stfit.errors import ModelError
from stfit.publish.allowlist import files_to_publish

STRAYS = [
    ".env", ".git/config", "checkpoints/step-4/optimizer.safetensors", "optimizer.safetensors", "token", "hf_token.txt",
    "pytorch_model.bin", "model.safetensors.tmp", "1_Pooling/notes.md", "modeling_evil.py", "big.gguf",
    "2_Dense/sub/config.json", "recipe.yaml", "README.md.bak", "train.jsonl",
]  # fmt: skip


@pytest.fixture
def model(trained, tmp_path):
    """A copy of the trained model."""
    return shutil.copytree(trained / "model", tmp_path / "model")


@pytest.mark.slow
def test_every_file_that_training_writes_is_published(model):
    written = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert set(files_to_publish(model)) == written
    assert {"README.md", "modules.json", "model.safetensors", "2_Dense/model.safetensors"} <= written


@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_file_is_refused_by_name(model, stray):
    path = model / stray
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("secret")
    with pytest.raises(ModelError, match="not part of a model") as caught:
        files_to_publish(model)
    assert stray in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["vocab.txt", "1_Pooling/link.json", "linked"])
@pytest.mark.parametrize("target", ["/etc/passwd", "config.json", "/etc", "/nowhere"])
def test_a_link_is_refused_wherever_it_leads(model, name, target):
    (model / name).symlink_to(target)
    with pytest.raises(ModelError, match="links, which are not followed") as caught:
        files_to_publish(model)
    assert name in str(caught.value)


def test_a_pipe_is_refused(model):
    os.mkfifo(model / "vocab.txt")
    with pytest.raises(ModelError, match=r"vocab\.txt"):
        files_to_publish(model)


def test_a_plain_checkpoint_is_refused(model):
    (model / "modules.json").unlink()
    with pytest.raises(ModelError, match="is not a model folder"):
        files_to_publish(model)


def test_a_folder_of_sentence_transformers_is_publishable(model, tmp_path):
    st = pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")
    st.SentenceTransformer(str(model), device="cpu").save_pretrained(str(tmp_path / "saved"))
    assert "modules.json" in files_to_publish(tmp_path / "saved")
