"""An exported model gives the same embeddings in its own runtime, whatever the lengths of the texts."""

import json

import numpy as np
import pytest

from stfit.commands.export import export
from stfit.data.source import Source
from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.export.onnx import Graph, embed_with_graph, require_exportable
from stfit.encoder.folder.save import save_encoder
from stfit.encoder.pooling import POOLINGS, PaddedStates, TokenStates
from stfit.errors import ModelError, RecipeError
from stfit.similarity import agreement
from stfit.workflows.encode.text_windows import Inputs


@pytest.fixture
def model(tiny_base, tmp_path):
    """Writes a model of a tiny base with the settings given."""

    def write(kind="bert", **settings):
        folder = tmp_path / "model"
        save_encoder(build_encoder(Model.model_validate({"base": str(tiny_base(kind)), **settings})), folder)
        return str(folder)

    return write


@pytest.fixture
def texts(sentences, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(sentences) + "\n")
    return Inputs(Source(dataset=str(path)))


@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling_over_padding_is_pooling_without(mode):
    import torch

    generator = torch.Generator().manual_seed(0)
    lengths = [3, 1, 5]
    states = torch.randn(3, 5, 4, generator=generator)
    for left in (False, True):
        mask = torch.zeros(3, 5)
        for row, length in enumerate(lengths):
            mask[row, 5 - length :] = 1
            if not left:
                mask[row] = mask[row].flip(0)
        flat = TokenStates.from_sequences(states[mask == 1], [np.zeros(length, np.int64) for length in lengths])
        torch.testing.assert_close(POOLINGS[mode].pool(PaddedStates(states, mask)), POOLINGS[mode].pool(flat))


def run_lines(lines):
    """The embeddings that the lines compute, which `export` prints."""
    scope = {}
    exec(lines, scope)
    return scope["embeddings"]


@pytest.mark.parametrize("kind", ["bert", pytest.param("mpnet", marks=pytest.mark.slow)])
def test_a_graph_gives_the_embeddings_of_encode(model, texts, tmp_path, kind):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    settings = {"pooling": ["mean", "max"], "layers": [{"type": "dense", "out_features": 8}, "normalize"]}
    found = export(model(kind, **settings, truncate_dim=6), "onnx", tmp_path / "out", True, texts)
    exact, small = found["files"]
    assert (exact["file"], small["file"]) == ("onnx/model.onnx", "onnx/model_int8.onnx")
    assert exact["largest_difference"] < 1e-5
    assert small["mean_cosine"] > 0.95
    assert small["mib"] < exact["mib"]
    printed = "\n".join(found["python"])
    assert "model_int8.onnx" in printed
    exact_rows = run_lines(printed.replace("model_int8", "model"))
    np.testing.assert_allclose(
        exact_rows, load_encoder(tmp_path / "model").encode(["a text", "another one"]), atol=1e-5
    )
    assert agreement(run_lines(printed), exact_rows).min() > 0.9
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["hidden_size"] == 32


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["distilbert", "xlm-roberta", "modernbert", "t5", "qwen3", "deberta-v2", "mpnet"])
def test_every_architecture_is_exported_or_refused(model, texts, tmp_path, kind):
    for _ in range(2 if kind == "distilbert" else 1):  # the second in the place of the first
        found = export(model(kind), "onnx", tmp_path / "out", False, texts)
    assert found["files"][0]["largest_difference"] < 1e-5
    assert [path.name for path in (tmp_path / "out" / "onnx").iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_openvino_gives_the_embeddings_of_encode(model, tmp_path):
    pytest.importorskip("openvino")
    found = export(model(), "openvino", tmp_path / "out", False, None)
    assert found["files"][0]["largest_difference"] < 1e-4
    assert not (tmp_path / "out" / "onnx").exists()
    expected = load_encoder(tmp_path / "model").encode(["a text", "another one"])
    np.testing.assert_allclose(run_lines("\n".join(found["python"])), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0.0, np.nan, -1.0])
def test_a_graph_whose_embeddings_are_wrong_for_one_text_is_refused(model, texts, tmp_path, monkeypatch, wrong):
    """Zero has no direction, and is as wrong as another one."""

    def embed_wrongly(*arguments):
        embeddings = embed_with_graph(*arguments)
        embeddings[0] *= wrong
        return embeddings

    monkeypatch.setattr("stfit.commands.export.embed_with_graph", embed_wrongly)
    with pytest.raises(ModelError, match="the graph's embeddings differ from the model's"):
        export(model(), "onnx", tmp_path / "out", False, texts)
    assert not (tmp_path / "out").exists()


def test_zero_embeddings_agree_with_zero_only():
    first, second = np.array([[0, 0], [0, 0], [1, 0], [1, 1]], np.float32), np.array([[0, 0], [0, 1], [2, 0], [0, 1]])
    np.testing.assert_allclose(agreement(first, second.astype(np.float32)), [1, 0, 1, 0.5**0.5], rtol=1e-6)


def test_what_is_no_export_is_not_overwritten(model, texts, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(RecipeError, match="is not an earlier export"):
        export(model(), "onnx", tmp_path / "mine", False, texts)
    with pytest.raises(RecipeError, match="--int8 works only with --to onnx"):
        export(model(), "openvino", tmp_path / "new", True, texts)


def test_what_a_graph_cannot_say_is_refused_by_name(tiny_base):
    base = str(tiny_base("bert"))
    convolved = build_encoder(Model.model_validate({"base": base, "token_layers": [{"type": "cnn"}]}))
    with pytest.raises(ModelError, match=r"layers before pooling \(cnn\)"):
        require_exportable(convolved)
    table = build_encoder(Model.model_validate({"base": {"type": "static"}}), lambda: ["a cat", "a dog"])
    with pytest.raises(ModelError, match="a StaticEmbedding is not a transformer"):
        require_exportable(table)
    assert Graph(build_encoder(Model(base=base))).dim == 32
