"""Correlations are those of sentence-transformers, and 0 where there is nothing to correlate."""

import numpy as np
import pytest
from measured import measured

from stfit.errors import DataError
from stfit.evaluation.evaluators.similarity import Similarity
from stfit.similarity import SIMILARITIES

SCORES = [0.0, 0.2, 0.2, 0.5, 0.9, 1.0, 0.5]


@pytest.fixture
def rows(sentences):
    return [
        {"sentence1": one, "sentence2": sentences[i - 2], "label": score}
        for i, (one, score) in enumerate(zip(sentences, SCORES, strict=True))
    ]


def values_of(evaluator, rows, one, other):
    """The metrics with these embeddings."""
    given = {"sentence1": one, "sentence2": other}
    found = evaluator.measure(rows, lambda role, texts: np.array(given[role], dtype=np.float32), "cosine")
    return {name: statistic.value for name, statistic in found.items()}


def test_values_are_those_of_sentence_transformers(encoder, examples_of, rows, peer_of):
    peer = peer_of(encoder)
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    ours = measured(encoder, [examples_of(Similarity, rows, name="stsb")], "end")
    columns = [[row[name] for row in rows] for name in ("sentence1", "sentence2", "label")]
    evaluator = EmbeddingSimilarityEvaluator(*columns, similarity_fn_names=list(SIMILARITIES), write_csv=False)
    theirs = evaluator(peer)
    for kind in ("spearman", "pearson"):
        for name in SIMILARITIES:
            assert ours[f"stsb/{kind}_{name}"] == pytest.approx(theirs[f"{kind}_{name}"], abs=1e-6)
    assert set(ours) == {f"stsb/{name}" for name in Similarity.metrics}


def test_equal_ranks_share_their_mean_rank(examples_of, rows):
    evaluator, examples = examples_of(Similarity, rows[:4])
    found = values_of(evaluator, examples, [[1.0], [1], [1], [1]], [[1.0], [2], [4], [4]])
    # ranks of the scores 1, 2.5, 2.5, 4 against those of the products 1, 2, 3.5, 3.5
    expected = np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3.5, 3.5])[0, 1]
    assert found["spearman_dot"] == pytest.approx(expected, abs=1e-12)


def test_distances_count_as_negatives_so_that_nearer_is_higher(examples_of, rows):
    evaluator, examples = examples_of(Similarity, [rows[0], rows[3], rows[5]])
    found = values_of(evaluator, examples, [[1.0, 0]] * 3, [[-1.0, 0], [0.0, 0.5], [1.0, 0]])
    assert {name: value for name, value in found.items() if name.startswith("spearman")} == {
        f"spearman_{name}": pytest.approx(1.0) for name in SIMILARITIES
    }


@pytest.mark.parametrize("vector", [[0.0, 0.0], [3.0, 1.0]], ids=["zero", "equal"])
def test_model_that_gives_one_embedding_to_everything_scores_zero(examples_of, rows, vector):
    evaluator, examples = examples_of(Similarity, rows)
    found = values_of(evaluator, examples, [vector] * len(rows), [vector] * len(rows))
    assert set(found.values()) == {0.0}


@pytest.mark.parametrize("scores", [[0.5, 0.5, 0.5], [0.5]], ids=["constant", "one row"])
def test_scores_without_a_difference_are_refused(encoder, examples_of, rows, scores):
    same = [row | {"label": score} for row, score in zip(rows, scores, strict=False)]
    with pytest.raises(DataError, match="evaluator `stsb` needs rows with different labels"):
        measured(encoder, [examples_of(Similarity, same, name="stsb")], "end")
