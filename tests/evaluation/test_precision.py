"""Metrics of embeddings that are stored in fewer bits are those of a search among what is stored."""

import numpy as np
import pytest
from measured import measured

from stfit.encoder.export.quantization import Ranges, quantize
from stfit.evaluation.evaluators.retrieval import Retrieval
from stfit.evaluation.evaluators.similarity import Similarity
from stfit.evaluation.evaluators.translation import Translation
from stfit.evaluation.measure import known_metrics, main_metrics

WORDS = ["rain", "bread", "train", "cat", "star", "song", "chess", "tea", "apple", "river", "lamp", "fish"] * 4
PAIRS = [
    {"anchor": f"about {word} {i}", "positive": f"on {word}s {WORDS[i - 5]} {i}", "part": i % 2}
    for i, word in enumerate(WORDS)
]
ALL = ["float32", "int8", "binary", "binary+rescore"]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def decoded(vectors, ranges):
    """The middle of the range of each byte, as `stfit encode` writes it."""
    step = (ranges.high - ranges.low) / 255
    return ranges.low + (quantize(vectors, "int8", ranges).astype(np.float32) + 128.5) * step


def ndcg(order, k=10):
    """Of the one relevant document of each query, which has the query's number."""
    ranks = [list(found).index(query) if query in found else None for query, found in enumerate(order[:, :k])]
    return np.mean([0.0 if rank is None else 1 / np.log2(rank + 2) for rank in ranks])


@pytest.mark.parametrize("dim", [None, 16])
def test_retrieval_is_that_of_a_search_among_what_is_stored(encoder, examples_of, dim):
    pair = examples_of(Retrieval, PAIRS, name="docs", precisions=ALL, k=[1, 3])
    found = measured(encoder, [pair], "end", [] if dim is None else [dim])
    queries, documents = (
        unit(encoder.encode([row[role] for row in PAIRS])[:, :dim]) for role in ("anchor", "positive")
    )
    ranges = Ranges.from_embeddings(documents)
    signs = [np.where(vectors > 0, 1.0, -1.0) for vectors in (queries, documents)]
    of_bytes = unit(decoded(queries, ranges)) @ unit(decoded(documents, ranges)).T
    of_signs = signs[0] @ signs[1].T
    first = np.argsort(-of_signs, axis=1, kind="stable")[:, : 4 * 3]
    again = np.take_along_axis(queries @ unit(decoded(documents, ranges)).T, first, axis=1)
    rescored = np.take_along_axis(first, np.argsort(-again, axis=1, kind="stable"), axis=1)
    at = "" if dim is None else f"@{dim}"
    expected = {
        f"docs{at}/ndcg@3": ndcg(np.argsort(-queries @ documents.T, axis=1, kind="stable"), 3),
        f"docs{at}#int8/ndcg@3": ndcg(np.argsort(-of_bytes, axis=1, kind="stable"), 3),
        f"docs{at}#binary/ndcg@3": ndcg(np.argsort(-of_signs, axis=1, kind="stable"), 3),
        f"docs{at}#binary+rescore/ndcg@3": ndcg(rescored, 3),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert len(set(expected.values())) > 2
    assert "docs#int8/recall@1" not in found  # of precisions, the main metrics alone


def test_pairs_and_translations_are_compared_as_they_are_stored(encoder, examples_of):
    rows = [{"sentence1": row["anchor"], "sentence2": row["positive"], "label": i / 48} for i, row in enumerate(PAIRS)]
    found = measured(encoder, [examples_of(Similarity, rows, name="pairs", precisions=["int8", "binary"])], "end")
    first, second = (
        np.where(encoder.encode([row[role] for row in rows]) > 0, 1.0, -1.0) for role in ("sentence1", "sentence2")
    )
    gold = np.arange(48)
    from scipy.stats import spearmanr

    assert found["pairs#binary/spearman_cosine"] == pytest.approx(spearmanr((first * second).sum(1), gold)[0], abs=1e-6)
    assert found["pairs#int8/spearman_cosine"] == pytest.approx(found["pairs/spearman_cosine"], abs=0.05)
    translated = measured(encoder, [examples_of(Translation, PAIRS, name="words", precisions=["binary"])], "end")
    assert 0 <= translated["words#binary/mean_accuracy"] <= 1


def test_slices_and_dimensions_are_stored_too(encoder, examples_of):
    pair = examples_of(Retrieval, PAIRS, name="docs", by="part", precisions=["int8"])
    found = measured(encoder, [pair], "end", [8])
    parts = [found[f"docs[{part}]@8#int8/ndcg@10"] for part in "01"]
    assert found["docs[worst]@8#int8/ndcg@10"] == pytest.approx(min(parts))
    assert found["docs@8#int8/ndcg@10"] == pytest.approx(np.mean(parts))
    assert set(known_metrics([pair[0]], "end", [8])) <= set(found) | {"docs[worst]/ndcg@1"}
    assert "docs#int8/ndcg@10" in main_metrics([pair], "cosine")


def test_a_dimension_with_one_value_tells_nothing_and_breaks_nothing(encoder, examples_of, monkeypatch):
    encode = encoder.encode

    def with_constant(texts, **options):
        vectors = encode(texts, **options)
        vectors[:, 0] = 0.25
        return vectors

    monkeypatch.setattr(type(encoder), "encode", lambda self, texts, **options: with_constant(texts, **options))
    encoder.config.similarity = "dot"
    found = measured(encoder, [examples_of(Retrieval, PAIRS, name="docs", precisions=ALL)], "end")
    assert all(np.isfinite(value) for value in found.values())


def test_float32_is_always_measured_and_nothing_twice():
    evaluator = Retrieval(dataset="./x", name="docs", precisions=["int8", "int8", "float32"])
    assert evaluator.stored_precisions == ["int8"]
