"""A corpus that was encoded in parts is measured as its texts are, without embedding them again."""

import json

import numpy as np
import pytest

from stfit.commands.encode import encode
from stfit.data.part import Part
from stfit.data.source import Source
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.errors import DataError
from stfit.evaluation.evaluators.retrieval import Retrieval
from stfit.evaluation.measure import measure
from stfit.options import EncodeOptions
from stfit.workflows.encode.text_windows import Inputs

DOCUMENTS = {f"d{i}": f"document {i} about {'cats' if i % 3 else 'rain'}" for i in range(20)}
QUERIES = {f"q{i}": f"what about {i}" for i in range(5)}


@pytest.fixture
def model(tiny_base):
    return str(tiny_base("bert"))


@pytest.fixture
def tables(tmp_path):
    for name, texts in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        rows = [{"id": key, "text": text} for key, text in texts.items()]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judgments = [{"query": f"q{i}", "corpus": f"d{3 * i}", "score": 1} for i in range(5)]
    (tmp_path / "relevant.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judgments))
    return tmp_path


def retrieval(tables, corpus):
    given = {"corpus": corpus, "queries": tables / "queries.jsonl", "relevant": tables / "relevant.jsonl"}
    return Retrieval(type="retrieval", **{role: {"dataset": str(path)} for role, path in given.items()})


def encoded(model, tables, options=None, with_text=True):
    for number in (1, 2):
        inputs = Inputs(Source(dataset=str(tables / "corpus.jsonl")), "text", "id", part=Part(number, 2))
        list(encode(model, inputs, tables / "parts", options or EncodeOptions(), with_text=with_text, device="cpu"))
    return tables / "parts"


def measured(model, evaluator, monkeypatch):
    """The metrics, and the texts that were embedded for them."""
    texts = []
    real = Encoder.encode
    with monkeypatch.context() as patch:
        patch.setattr(
            Encoder, "encode", lambda self, some, **options: texts.extend(some) or real(self, some, **options)
        )
        found = measure(load_encoder(model), [(evaluator, evaluator.load(0, None))], "end")
    return {name: statistic.value for name, statistic in found.items()}, texts


def test_encoded_corpus_gives_the_metrics_of_its_texts_and_is_not_embedded_again(model, tables, monkeypatch) -> None:
    expected, embedded = measured(model, retrieval(tables, tables / "corpus.jsonl"), monkeypatch)
    assert {*embedded} == {*QUERIES.values(), *DOCUMENTS.values()}
    found, embedded = measured(model, retrieval(tables, encoded(model, tables)), monkeypatch)
    assert {*embedded} == {*QUERIES.values()}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "differs"), [({"normalize": True}, "normalize"), ({"truncate_dim": 8}, "dimensions"), ({}, "model")]
)
def test_embeddings_that_the_model_does_not_give_are_not_used(
    model, tables, tiny_base, monkeypatch, caplog, options, differs
) -> None:
    caplog.set_level("INFO", logger="stfit")
    made_by = model if options else str(tiny_base("roberta"))
    expected, _ = measured(model, retrieval(tables, tables / "corpus.jsonl"), monkeypatch)
    found, embedded = measured(
        model, retrieval(tables, encoded(made_by, tables, EncodeOptions(**options))), monkeypatch
    )
    assert {*DOCUMENTS.values()} <= {*embedded}
    assert f"embedded again, since its embeddings have another {differs}" in caplog.text
    assert found == pytest.approx(expected)


def test_parts_without_texts_are_no_corpus(model, tables) -> None:
    inputs = Inputs(Source(dataset=str(tables / "corpus.jsonl")), "text", part=Part(1, 1))
    list(encode(model, inputs, tables / "numbers", EncodeOptions(), device="cpu"))
    evaluator = retrieval(tables, tables / "numbers")
    with pytest.raises(DataError, match="holds embeddings without their texts: encode with --with-text"):
        evaluator.load(0, None)


def test_texts_of_parts_are_a_dataset(model, tables, tmp_path) -> None:
    parts = encoded(model, tables)
    inputs = Inputs(Source(dataset=str(parts)), "text")
    list(encode(model, inputs, tmp_path / "again.npy", EncodeOptions(), device="cpu"))
    expected = load_encoder(model).encode([*DOCUMENTS.values()])
    np.testing.assert_allclose(np.load(tmp_path / "again.npy"), expected, atol=2e-7)
