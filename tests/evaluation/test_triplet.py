"""Accuracy over triplets is that of sentence-transformers; every negative of a row has to be farther away."""

import numpy as np
import pytest
from measured import measured

from stfit.evaluation.evaluators.triplet import TripletAccuracy
from stfit.similarity import SIMILARITIES


def triplets(sentences, extra=""):
    return [
        {"anchor": text, "positive": sentences[i - 1] + extra, "negative": sentences[i - 3]}
        for i, text in enumerate(sentences)
    ]


def accuracy(evaluator, rows, **vectors):
    found = evaluator.measure(rows, lambda role, texts: np.array(vectors[role], dtype=np.float32), "dot")
    return found["accuracy_dot"].value


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_values_are_those_of_sentence_transformers(encoder, examples_of, sentences, peer_of, margin):
    peer = peer_of(encoder)
    from sentence_transformers.sentence_transformer.evaluation import TripletEvaluator

    rows = triplets(sentences) + triplets(sentences[::-1], "!")
    ours = measured(encoder, [examples_of(TripletAccuracy, rows, name="kept", margin=margin)], "end")
    columns = [[row[name] for row in rows] for name in ("anchor", "positive", "negative")]
    evaluator = TripletEvaluator(*columns, similarity_fn_names=list(SIMILARITIES), margin=margin, write_csv=False)
    theirs = evaluator(peer)
    assert ours == {
        f"kept/accuracy_{name}": pytest.approx(theirs[f"{name}_accuracy"], abs=1e-6) for name in SIMILARITIES
    }
    assert any(0 < value < 1 for value in ours.values())


def test_tie_is_wrong_and_more_than_the_margin_is_asked_for(examples_of):
    rows = [{"anchor": f"a{i}", "positive": f"p{i}", "negative": f"n{i}"} for i in range(4)]
    vectors = {"anchor": [[1.0]] * 4, "positive": [[4.0], [3], [2], [2]], "negative": [[2.0], [2], [2], [1]]}
    for margin, right in ((0.0, 3), (1.0, 1), (2.0, 0)):
        evaluator, examples = examples_of(TripletAccuracy, rows, margin=margin)
        assert accuracy(evaluator, examples, **vectors) == right / 4


def test_every_negative_counts_and_a_missing_one_does_not(examples_of):
    rows = [
        {"anchor": "a", "positive": "p", "negative": ["far", "near"]},
        {"anchor": "b", "positive": "q", "negative": ["far"]},
    ]
    evaluator, examples = examples_of(TripletAccuracy, rows, columns={"negative": "negative[:2]"})
    assert examples.texts["negative_2"] == ["near", None]
    vectors = {"anchor": [[1.0]] * 2, "positive": [[2.0]] * 2, "negative_1": [[1.0]] * 2, "negative_2": [[9.0]] * 2}
    assert accuracy(evaluator, examples, **vectors) == 0.5
