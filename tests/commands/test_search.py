"""`stfit search` finds what a full sort of all similarities finds, and writes it for people and for trec_eval."""

import json

import numpy as np
import pytest

from stfit.commands.encode import encode
from stfit.commands.search import search, source_of_queries
from stfit.data.embeddings.writers import EmbeddingRows
from stfit.data.source import Source
from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import DataError, RecipeError
from stfit.options import EncodeOptions
from stfit.workflows.encode.search_corpus import search_windows
from stfit.workflows.encode.text_windows import Inputs

random = np.random.default_rng(0)


def windows_of(values, size, texts=None):
    for start in range(0, len(values), size):
        part = values[start : start + size]
        columns = {} if texts is None else {"text": texts[start : start + size]}
        yield EmbeddingRows(list(range(start, start + len(part))), columns, part)


@pytest.mark.parametrize("size", [1, 7, 16, 100])
@pytest.mark.parametrize("top", [1, 5, 200])
def test_windows_find_the_first_of_a_full_sort(size, top) -> None:
    corpus, queries = (
        random.standard_normal((90, 8)).astype(np.float32),
        random.standard_normal((5, 8)).astype(np.float32),
    )
    corpus[40] = corpus[3]  # of equals, the earlier one comes first
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, corpus)]
    scores = unit[0] @ unit[1].T
    scores[:, 40] = scores[:, 3]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    found = search_windows(queries, windows_of(corpus, size), top)
    assert [[record["id"] for record in each] for each in found] == order.tolist()
    np.testing.assert_allclose(
        [[record["similarity"] for record in each] for each in found],
        np.take_along_axis(scores, order, axis=1),
        atol=1e-5,
    )


def test_equal_texts_are_one_and_what_is_not_finite_is_none() -> None:
    corpus = random.standard_normal((6, 8)).astype(np.float32)
    corpus[5] = corpus[0]
    corpus[2, 0] = np.nan
    texts = ["a", "b", "c", " ", "e", "a"]
    (found,) = search_windows(corpus[:1], windows_of(corpus, 2, texts), 9)
    assert sorted(record["id"] for record in found) == [0, 1, 4]


@pytest.fixture
def corpus(tmp_path, sentences):
    rows = [{"_id": f"d{i}", "text": f"{text} {i}"} for i, text in enumerate(sentences * 3)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Inputs(Source(dataset=str(tmp_path / "corpus.jsonl"), split="train"))


@pytest.fixture
def queries(tmp_path):
    rows = [{"_id": "q1", "text": "a cat"}, {"_id": "q2", "text": " "}, {"_id": "q3", "text": "rain all day"}]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return source_of_queries(str(tmp_path / "queries.jsonl"), None)


def test_queries_of_a_file_have_their_ids_and_a_run_file_their_ranks(tiny_base, corpus, queries, tmp_path) -> None:
    model = str(tiny_base("bert"))
    shown = search(model, corpus, ["a cat"], queries, 3, "cpu")
    assert [query["id"] for query in shown["queries"]] == ["1", "q1", "q3"]
    assert shown["queries"][0]["nearest"] == shown["queries"][1]["nearest"]
    written = search(model, corpus, [], queries, 3, "cpu", tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == shown["queries"][1:]
    assert (written["count"], written["output"]) == (2, str(tmp_path / "out.jsonl"))
    search(model, corpus, [], queries, 3, "cpu", tmp_path / "out.trec")
    expected = [
        f"{query['id']} Q0 {near['id']} {rank} {near['similarity']:.6f} stfit"
        for query in lines
        for rank, near in enumerate(query["nearest"], start=1)
    ]
    assert (tmp_path / "out.trec").read_text().splitlines() == expected


def stored(model, corpus, path, precision):
    calibration = path.with_suffix(".json") if precision == "int8" else None
    list(
        encode(
            model,
            corpus,
            path,
            EncodeOptions(normalize=True, precision=precision),
            calibration=calibration,
            device="cpu",
        )
    )
    return Inputs(Source(dataset=str(path), split="train")), calibration


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "binary", "ubinary"])
def test_stored_embeddings_of_any_precision_are_searched(tiny_base, corpus, tmp_path, precision) -> None:
    model = str(tiny_base("bert"))
    encoder = load_encoder(model)
    inputs, calibration = stored(model, corpus, tmp_path / "corpus.npy", precision)
    found = search(model, inputs, ["a cat", "rain"], None, 21, "cpu", calibration=calibration)["queries"]
    texts = [json.loads(line)["text"] for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    documents = encoder.encode(texts, normalize=True)
    if "binary" in precision:
        documents = np.where(documents > 0, 1.0, -1.0) / documents.shape[1] ** 0.5
    scores = encoder.encode(["a cat", "rain"], normalize=True) @ documents.T
    for query, score in zip(found, scores, strict=True):
        by_id = {near["id"]: near["similarity"] for near in query["nearest"]}
        np.testing.assert_allclose([by_id[i] for i in range(21)], score, atol=0.02 if precision == "int8" else 2e-3)


def test_an_index_finds_what_the_exact_search_finds(tiny_base, corpus, queries, tmp_path) -> None:
    pytest.importorskip("faiss")
    model, prompts = str(tmp_path / "model"), {"query": "rain: ", "document": "the castle near the sea: "}
    save_encoder(build_encoder(Model(base=str(tiny_base("bert")), prompts=prompts)), tmp_path / "model")
    exact = search(model, corpus, [], queries, 3, "cpu")
    found = search(model, corpus, [], queries, 3, "cpu", approximate=True)
    assert found["recall"] > 0.9
    for one, other in zip(exact["queries"], found["queries"], strict=True):
        scores = ([near["similarity"] for near in each["nearest"]] for each in (one, other))
        np.testing.assert_allclose(*scores, atol=1e-5)
    one, none = tmp_path / "one.txt", tmp_path / "none.txt"
    one.write_text("a cat\n")
    none.write_text("\n")
    (alone,) = search(model, Inputs(Source(dataset=str(one))), ["rain"], None, 3, "cpu", approximate=True)["queries"]
    assert len(alone["nearest"]) == 1
    with pytest.raises(DataError, match="contains no text"):
        search(model, Inputs(Source(dataset=str(none))), ["rain"], None, 3, "cpu", approximate=True)


def test_what_can_not_be_searched_or_written_is_refused(tiny_base, corpus, queries, tmp_path) -> None:
    model = str(tiny_base("bert"))
    inputs, _ = stored(model, corpus, tmp_path / "bytes.npy", "int8")
    with pytest.raises(DataError, match="with --calibration FILE"):
        search(model, inputs, ["a"], None, 3, "cpu")
    with pytest.raises(RecipeError, match=r"search writes \.jsonl"):
        search(model, corpus, ["a"], None, 3, "cpu", tmp_path / "out.csv")
    with pytest.raises(RecipeError, match="corpus"):
        search(model, corpus, ["a"], None, 3, "cpu", tmp_path / "corpus.jsonl")
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q 1", "text": "a cat"}) + "\n")
    with pytest.raises(DataError, match="'q 1' can't stand in a run file"):
        search(model, corpus, [], queries, 3, "cpu", tmp_path / "out.run")
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": ""}) + "\n")
    with pytest.raises(DataError, match="contains no query"):
        search(model, corpus, [], queries, 3, "cpu")
