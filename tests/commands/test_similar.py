"""`stfit similar` finds what a full sort of all similarities finds."""

import numpy as np
import pytest

from stfit.commands.similar import closest, similar
from stfit.data.source import Source
from stfit.encoder.build import load_encoder
from stfit.errors import DataError
from stfit.evaluation import top_pairs as room
from stfit.evaluation.top_pairs import closest_pairs, closest_pairs_approximately
from stfit.workflows import text_windows as windows
from stfit.workflows.text_windows import Inputs

generator = np.random.default_rng(0)


def unit(rows: int, dim: int = 8) -> np.ndarray:
    embeddings = generator.standard_normal((rows, dim)).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


@pytest.mark.parametrize(("rows", "k"), [(50, 7), (50, 2000), (2, 5), (16, 120)])
def test_closest_pairs_are_the_first_of_all_pairs(monkeypatch, rows, k) -> None:
    monkeypatch.setattr(room, "BLOCK", 16)
    embeddings = unit(rows)
    one, other = np.triu_indices(rows, 1)
    score = (embeddings @ embeddings.T)[one, other]
    order = np.argsort(-score, kind="stable")[:k]
    found, pairs = closest_pairs(embeddings, k)
    np.testing.assert_allclose(found, score[order], atol=1e-6)
    assert pairs.tolist() == np.stack([one, other], axis=1)[order].tolist()


def test_approximate_pairs_are_almost_the_exact_ones() -> None:
    pytest.importorskip("faiss")
    embeddings = unit(500)
    exact = {tuple(pair) for pair in closest_pairs(embeddings, 50)[1].tolist()}
    found = {tuple(pair) for pair in closest_pairs_approximately(embeddings, 50)[1].tolist()}
    assert len(exact & found) > 45


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
    _, pairs = closest_pairs(rows, 3)
    assert [(p["text1"], p["text2"]) for p in result["pairs"]] == [(sentences[i], sentences[j]) for i, j in pairs]


def test_too_few_texts_are_an_error(tiny_base, tmp_path) -> None:
    (tmp_path / "t.txt").write_text("\n \n")
    inputs = Inputs(Source(dataset=str(tmp_path / "t.txt")))
    with pytest.raises(DataError, match="contains no text"):
        similar(str(tiny_base("bert")), inputs, ["a"], 3, "cpu")
    with pytest.raises(DataError, match="contains 0 distinct texts"):
        closest(str(tiny_base("bert")), inputs, 3, "cpu")
