"""`stfit similar` finds what a full sort of all similarities finds."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from stfit.commands import similar as command
from stfit.commands.encode import encode
from stfit.commands.similar import closest, communities, similar
from stfit.data.embeddings import read as reading
from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.data.part import Part
from stfit.data.source import Source
from stfit.encoder.build import load_encoder
from stfit.errors import DataError, InterruptedRun, RecipeError
from stfit.neighbors import top_pairs as room
from stfit.neighbors.approximate import build_index, measure_recall, top_pairs_approximately
from stfit.neighbors.top_pairs import NO_PAIRS, TopPairs, block_count, compare_block
from stfit.options import EncodeOptions
from stfit.workflows.encode import text_windows as windows
from stfit.workflows.encode.text_windows import Inputs

generator = np.random.default_rng(0)
BLANK, SAME = 1, 2
"""Rows of `documents`."""


def unit(rows: int, dim: int = 8) -> np.ndarray:
    embeddings = generator.standard_normal((rows, dim)).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def top_pairs(rows: EmbeddingMatrix, k: int) -> TopPairs:
    best = NO_PAIRS
    for number in range(block_count(rows)):
        best = compare_block(rows, number, best, k)
    return best


@pytest.mark.parametrize(("rows", "k"), [(50, 7), (50, 2000), (2, 5), (16, 120)])
def test_closest_pairs_are_the_first_of_all_pairs(monkeypatch, rows, k) -> None:
    monkeypatch.setattr(room, "BLOCK", 16)
    embeddings = unit(rows)
    one, other = np.triu_indices(rows, 1)
    score = (embeddings @ embeddings.T)[one, other]
    order = np.argsort(-score, kind="stable")[:k]
    found, pairs = top_pairs(EmbeddingMatrix([3 * embeddings]), k)
    np.testing.assert_allclose(found, score[order], atol=1e-6)
    assert pairs.tolist() == np.stack([one, other], axis=1)[order].tolist()


def test_an_index_finds_almost_all_pairs_and_says_how_many() -> None:
    pytest.importorskip("faiss")
    rows = EmbeddingMatrix([unit(300), unit(200)])
    index = build_index(rows)
    exact = {tuple(pair) for pair in top_pairs(rows, 50).pair_k.tolist()}
    found = {tuple(pair) for pair in top_pairs_approximately(index, rows, 50).pair_k.tolist()}
    assert len(exact & found) > 45
    assert measure_recall(index, rows) > 0.9
    other = build_index(EmbeddingMatrix([unit(500)]))
    assert measure_recall(other, rows) < 0.5


@pytest.fixture
def corpus(tmp_path, sentences, monkeypatch) -> Inputs:
    monkeypatch.setattr(windows, "FIRST_WINDOW", 3)
    (tmp_path / "t.txt").write_text("\n".join([*sentences, "", " ", *sentences]))
    return Inputs(Source(dataset=str(tmp_path / "t.txt")))


def test_windows_do_not_change_what_is_found(tiny_base, corpus, sentences) -> None:
    encoder = load_encoder(tiny_base("bert"))
    rows = encoder.encode(sentences, normalize=True)
    (found,) = similar(str(tiny_base("bert")), corpus, ["a cat"], 4, "cpu")["queries"]
    score = encoder.encode(["a cat"], normalize=True)[0] @ rows.T
    assert [near["text"] for near in found["nearest"]] == [sentences[i] for i in np.argsort(-score)[:4]]
    result = closest(str(tiny_base("bert")), corpus, 3, "cpu")
    assert result["texts"] == len(sentences)
    _, pairs = top_pairs(EmbeddingMatrix([rows]), 3)
    assert [(p["text1"], p["text2"]) for p in result["pairs"]] == [(sentences[i], sentences[j]) for i, j in pairs]


def test_too_few_texts_are_an_error(tiny_base, tmp_path) -> None:
    (tmp_path / "t.txt").write_text("\n \n")
    inputs = Inputs(Source(dataset=str(tmp_path / "t.txt")))
    with pytest.raises(DataError, match="contains no text"):
        similar(str(tiny_base("bert")), inputs, ["a"], 3, "cpu")
    with pytest.raises(DataError, match="contains 0 distinct texts"):
        closest(str(tiny_base("bert")), inputs, 3, "cpu")


@pytest.fixture
def documents(tmp_path, sentences, monkeypatch) -> Inputs:
    """Documents with ids and titles; two of them have the same text, and one has none."""
    monkeypatch.setattr(reading, "WINDOW_ROWS", 3)
    monkeypatch.setattr(windows, "FIRST_WINDOW", 3)
    texts = [sentences[0], " ", *sentences]
    rows = [{"_id": f"d{i}", "title": text[:5], "text": text} for i, text in enumerate(texts)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Inputs(Source(dataset=str(tmp_path / "corpus.jsonl")))


def stored(model, documents, output, options=None, **choices) -> Inputs:
    list(encode(model, documents, output, options or EncodeOptions(), device="cpu", **choices))
    return Inputs(Source(dataset=str(output)))


@pytest.mark.parametrize("name", ["e.parquet", "e.jsonl", "shards"])
def test_search_of_stored_embeddings_equals_search_of_their_texts(tiny_base, documents, tmp_path, name) -> None:
    model, queries = str(tiny_base("bert")), ["a cat", "so much rain"]
    expected = similar(model, documents, queries, 4, "cpu")
    inputs = stored(model, replace(documents, keep=("title",)), tmp_path / name, with_text=True)
    found = similar(model, inputs, queries, 4, "cpu")
    assert {"id", "similarity", "text", "title"} == {*expected["queries"][0]["nearest"][0]}
    for one, other in zip(expected["queries"], found["queries"], strict=True):
        for near, same in zip(one["nearest"], other["nearest"], strict=True):
            assert same.pop("similarity") == pytest.approx(near.pop("similarity"), abs=1e-6)
            assert same == near


@pytest.mark.parametrize("name", ["e.npy", "e.safetensors"])
def test_rows_of_a_file_without_ids_and_texts_are_found_by_their_numbers(tiny_base, documents, tmp_path, name) -> None:
    model = str(tiny_base("bert"))
    expected = similar(model, documents, ["a cat"], 4, "cpu")["queries"][0]["nearest"]
    found = similar(model, stored(model, documents, tmp_path / name), ["a cat"], 6, "cpu")["queries"][0]["nearest"]
    single = [near for near in found if near["id"] not in (SAME, BLANK)]  # nothing says what their texts are
    assert [f"d{near['id']}" for near in single[:4]] == [near["id"] for near in expected]
    assert [near["similarity"] for near in single[:4]] == pytest.approx([near["similarity"] for near in expected])


def test_closest_pairs_of_stored_embeddings_are_those_of_their_texts(tiny_base, documents, tmp_path) -> None:
    model = str(tiny_base("bert"))
    expected = closest(model, documents, 3, "cpu")["pairs"]
    found = closest(model, stored(model, documents, tmp_path / "e.parquet", with_text=True), 3, "cpu")["pairs"]
    assert [(pair["id1"], pair["id2"]) for pair in found] == [(pair["id1"], pair["id2"]) for pair in expected]
    assert found[0]["text1"] == expected[0]["text1"]


def test_clusters_of_texts_and_of_their_embeddings_are_the_same_and_can_be_written(
    tiny_base, documents, tmp_path
) -> None:
    model = str(tiny_base("bert"))
    expected = communities(model, documents, 0.5, 2, "cpu")
    found = communities(model, stored(model, documents, tmp_path / "e.parquet", with_text=True), 0.5, 2, "cpu")
    assert expected["clustered"] == sum(cluster["size"] for cluster in expected["clusters"]) > 1
    for one, other in zip(expected["clusters"], found["clusters"], strict=True):
        assert [member["id"] for member in one["members"]] == [member["id"] for member in other["members"]]
        assert one["members"][0]["similarity"] == 1
        assert min(member["similarity"] for member in one["members"]) >= 0.5
    output = tmp_path / "clusters.jsonl"
    result = communities(model, documents, 0.5, 2, "cpu", output)
    assert [json.loads(line) for line in output.read_text().splitlines()] == expected["clusters"]
    assert result["rows"] == len(expected["clusters"])
    with pytest.raises(RecipeError, match=r"corpus\.jsonl"):
        communities(model, documents, 0.5, 2, "cpu", tmp_path / "corpus.jsonl")


def written(folder) -> list[dict]:
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return sorted(rows, key=lambda row: -row["similarity"])


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_the_best_pairs_of_all_parts_are_those_of_the_whole(tiny_base, documents, tmp_path, monkeypatch, parts) -> None:
    monkeypatch.setattr(room, "BLOCK", 2)
    model = str(tiny_base("bert"))
    encoded = stored(model, documents, tmp_path / "e.parquet", with_text=True)
    expected = closest(model, encoded, 7, "cpu")["pairs"]
    for number in range(parts, 0, -1):
        part = Part(number, parts)
        closest(model, encoded, 7, "cpu", output=tmp_path / "pairs", part=part)
    found = written(tmp_path / "pairs")[:7]
    assert [(pair["id1"], pair["id2"]) for pair in found] == [(pair["id1"], pair["id2"]) for pair in expected]


def test_parts_in_folders_are_compared_where_they_lie(tiny_base, documents, tmp_path) -> None:
    model = str(tiny_base("bert"))
    expected = closest(model, documents, 7, "cpu")["pairs"]
    for number in (1, 2, 3):
        encoded = stored(model, replace(documents, part=Part(number, 3)), tmp_path / "parts", with_text=True)
    found = closest(model, encoded, 7, "cpu")["pairs"]
    assert [(p["text1"], p["text2"]) for p in found] == [(p["text1"], p["text2"]) for p in expected]


def test_an_interrupted_comparison_goes_on_where_it_stopped(tiny_base, documents, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(room, "BLOCK", 2)
    monkeypatch.setattr(command, "SAVE_SECONDS", 0)
    model, output, compared = str(tiny_base("bert")), tmp_path / "pairs.jsonl", []

    def compare(rows, number, best, k, device):
        compared.append(number)
        if len(compared) == 3:
            signal.raise_signal(signal.SIGTERM)
        return compare_block(rows, number, best, k, device)

    monkeypatch.setattr(command, "compare_block", compare)
    with pytest.raises(InterruptedRun, match=r"what was found is kept in .*pairs\.jsonl\.blocks; run the same command"):
        closest(model, documents, 7, "cpu", output=output)
    assert not output.exists()
    result = closest(model, documents, 7, "cpu", output=output)
    assert compared[:4] == [0, 1, 2, 2]
    assert result["output"] == str(output)
    assert result["rows"] == 7
    assert written(output) == closest(model, documents, 7, "cpu")["pairs"]
    assert [path.name for path in tmp_path.glob("pairs*")] == ["pairs.jsonl"]


def test_pairs_are_written_to_json_lines_and_never_over_the_input(tiny_base, documents, tmp_path) -> None:
    model = str(tiny_base("bert"))
    with pytest.raises(RecipeError, match=r"must be a \.jsonl file"):
        closest(model, documents, 3, "cpu", output=tmp_path / "pairs.csv")
    with pytest.raises(RecipeError, match=r"must be a \.jsonl file"):
        communities(model, documents, 0.5, 2, "cpu", tmp_path / "clusters.csv")
    with pytest.raises(RecipeError, match="this command reads it"):
        closest(model, documents, 3, "cpu", output=tmp_path / "corpus.jsonl")


def test_a_query_is_cut_to_the_dimension_of_the_file(tiny_base, documents, tmp_path, caplog) -> None:
    caplog.set_level("INFO", logger="stfit")
    encoder = load_encoder(tiny_base("bert"))
    inputs = stored(str(tiny_base("bert")), documents, tmp_path / "e.npy", EncodeOptions(truncate_dim=8))
    ((near,),) = (each["nearest"] for each in similar(str(tiny_base("bert")), inputs, ["a cat"], 1, "cpu")["queries"])
    assert "queries are cut to 8 of 32 dimensions" in caplog.text
    query = encoder.encode("a cat", normalize=True, truncate_dim=8)
    rows = np.load(tmp_path / "e.npy")
    assert near["similarity"] == pytest.approx(max(rows @ query / np.linalg.norm(rows, axis=1)), abs=1e-6)


def test_embeddings_of_another_model_or_of_integers_are_refused(tiny_base, documents, tmp_path) -> None:
    model = str(tiny_base("bert"))
    np.save(tmp_path / "wide.npy", np.ones((3, 100), dtype=np.float32))
    with pytest.raises(DataError, match=r"embeddings of 100 dimensions, and those of .* have 32"):
        similar(model, Inputs(Source(dataset=str(tmp_path / "wide.npy"))), ["a"], 3, "cpu")
    for name in ("b.npy", "b.parquet", "b.jsonl"):
        binary = stored(model, documents, tmp_path / name, EncodeOptions(precision="binary"))
        with pytest.raises(DataError, match="only float32 and float16 can be searched: run `stfit encode` without"):
            closest(model, binary, 3, "cpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[1.0, 2.0], [3.0]], "can't be read"),
        ([[1.0, 2.0]] * 1024 + [[3.0]], "of 2 and of 1 dimensions"),
        ([[1.0, 2.0], None], "can't be read"),
        ([[1.0, 2.0]], "1 distinct texts"),
    ],
)
def test_a_damaged_file_of_embeddings_is_an_error(documents, tmp_path, content, message) -> None:
    (tmp_path / "e.jsonl").write_text("".join(json.dumps({"embedding": row}) + "\n" for row in content))
    with pytest.raises(DataError, match=message):
        closest("no model is needed", Inputs(Source(dataset=str(tmp_path / "e.jsonl"))), 3, "cpu")


def test_with_a_column_the_texts_of_a_file_of_embeddings_are_embedded(tiny_base, documents, tmp_path) -> None:
    model = str(tiny_base("bert"))
    inputs = stored(model, documents, tmp_path / "e.parquet", EncodeOptions(truncate_dim=8), with_text=True)
    found = similar(model, replace(inputs, column="text"), ["a cat"], 3, "cpu")
    ids = [near["id"] for near in found["queries"][0]["nearest"]]
    assert ids == [near["id"] for near in similar(model, documents, ["a cat"], 3, "cpu")["queries"][0]["nearest"]]


@pytest.mark.slow
def test_what_is_stopped_by_a_user_says_so(tiny_base):
    """`similar` is a verb without a way of its own to stop."""
    waiting = subprocess.Popen(
        [sys.executable, "-m", "stfit", "similar", tiny_base("bert"), "-", "--query", "a cat", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "embedding the texts" in waiting.stderr.readline()  # the end of stdin never comes
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate()
    assert waiting.returncode == 130
    assert err.endswith("stfit: stopped\n")
    assert json.loads(out)["error"]["exit_code"] == 130
