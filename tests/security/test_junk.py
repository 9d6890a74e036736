"""Whatever stands in a file, it is read, or refused in stfit's own words: no mutation ends in a traceback."""

import json
import random
import shutil
from contextlib import suppress

import numpy as np
import pytest
from draws import few_or_many

from stfit.data.embeddings.read import read_embeddings
from stfit.data.embeddings.writers import EmbeddingRows, write_output
from stfit.data.reading.labels_json import read_label_names
from stfit.data.reading.local_files import read_file
from stfit.data.source import ReadOptions
from stfit.encoder.bases.word_vectors import read_vectors
from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.inspect import inspect_folder
from stfit.encoder.folder.save import save_encoder
from stfit.errors import DataError, ModelError
from stfit.io.json_files import load_json_object
from stfit.runtime.run_folder import RunFolder
from stfit.training.checkpoint import FILES, newest_checkpoint, verify_checkpoint, write_manifest

PIECES = [
    "{", "}", "[", "]", '"', ":", ",", "null", "true", "-1", "1e999", "NaN", "0.5", "9" * 30, "\\u0000", "\\ud800", "é",
    "\0", "\n", "\t", "..", "/", '"type"', '"path": "../x"', "[" * 5_000, '{"a":', " ", "\ufeff",
]  # fmt: skip
ROWS = [{"anchor": f"question {i}", "label": i % 2, "set": {"pos": ["a", "b"]}} for i in range(4)]


def mutated(text, rng):
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(text) + 1)
        end = start + rng.choice([0, 0, 1, 5, 30])
        text = text[:start] + rng.choice([*PIECES, text[start : end + 5], ""]) + text[end:]
    return text.encode() if rng.random() < 0.9 else text.encode()[: rng.randrange(len(text) + 1)] + b"\xff"


@pytest.fixture(scope="module")
def good(tiny_base, tmp_path_factory):
    """Files that are good, by the name that they have below."""
    root = tmp_path_factory.mktemp("good")
    layers = [{"type": "dense", "out_features": 4}]
    save_encoder(build_encoder(Model(base=str(tiny_base("bert")), layers=layers)), root / "model")
    checkpoint = root / "step-00000001"
    checkpoint.mkdir()
    for name in FILES:
        (checkpoint / name).write_text('{"facts": {}}')
    write_manifest(checkpoint)
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (root / "rows.csv").write_text('anchor,label\nquestion,"0"\nother,1\n')
    (root / "labels.json").write_text('{"label": {"no": 0, "yes": 1}, "other": ["a", "b"]}')
    (root / "vectors.txt").write_text("2 3\nthe 0.1 0.2 0.3\ncat 1 2 3\n")
    (root / "stfit.lock").write_text(json.dumps({"recipe": {"seed": 1}, "data": []}))
    return root


FILES_AND_READERS = {
    "step-00000001/manifest.json": lambda root: (verify_checkpoint(root / "step-00000001"), newest_checkpoint(root)),
    "model/modules.json": lambda root: inspect_folder(root / "model"),
    "model/config.json": lambda root: inspect_folder(root / "model"),
    "model/tokenizer_config.json": lambda root: inspect_folder(root / "model"),
    "model/sentence_bert_config.json": lambda root: inspect_folder(root / "model"),
    "model/config_sentence_transformers.json": lambda root: inspect_folder(root / "model"),
    "model/1_Pooling/config.json": lambda root: inspect_folder(root / "model"),
    "model/2_Dense/config.json": lambda root: inspect_folder(root / "model"),
    "rows.jsonl": lambda root: list(read_file(root / "rows.jsonl", ReadOptions())),
    "rows.csv": lambda root: list(read_file(root / "rows.csv", ReadOptions())),
    "labels.json": lambda root: read_label_names(root / "labels.json", "label"),
    "vectors.txt": lambda root: read_vectors(root / "vectors.txt"),
    "stfit.lock": lambda root: load_json_object(RunFolder(root).lock),
}


@few_or_many(100)
@pytest.mark.parametrize(("name", "read"), FILES_AND_READERS.items(), ids=FILES_AND_READERS)
def test_mutated_file_is_read_or_refused(tmp_path, good, promise, name, read, count):
    root, rng = tmp_path / "root", random.Random(f"{count} {name}")
    shutil.copytree(good, root)
    read(root)
    path, refused = root / name, 0
    text = path.read_text()
    for _ in range(count):
        content = mutated(text, rng)
        if not path.parent.is_dir():  # a damaged checkpoint was put aside
            shutil.copytree((good / name).parent, path.parent)
        path.write_bytes(content)
        try:
            read(root)
        except (DataError, ModelError):
            refused += 1
        except Exception as error:
            error.add_note(f"{name}: {content!r}"[:3_000])
            raise
    promise("mutated files read, or refused in stfit's own words", f"{count}/{count}, {refused} refused ({name})")


@few_or_many(100)
@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet", ".jsonl"])
def test_mutated_embeddings_are_read_or_refused(tmp_path, suffix, count):
    path, rng = tmp_path / f"e{suffix}", random.Random(f"{count} {suffix}")
    write_output(iter([EmbeddingRows(["a", "b", "c"], {}, np.eye(3, 4, dtype=np.float32))]), path, 3)
    good = path.read_bytes()
    for _ in range(count):
        content = bytearray(good[: rng.choice([len(good), rng.randrange(len(good))])])
        for at in rng.sample(range(len(content)), min(3, len(content))):
            content[at] = rng.randrange(256)
        path.write_bytes(content)
        with suppress(DataError):
            stored = read_embeddings(path)
            assert stored is None or len(list(stored.windows))
