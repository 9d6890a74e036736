"""Paraphrase mining equals sentence-transformers' evaluator; a pair counts once, whichever sentence found it."""

import numpy as np
import pytest
from measured import measured

from stfit.evaluation.evaluators.paraphrase_mining import ParaphraseMining, paraphrases


def pairs(sentences):
    return [{"anchor": sentences[i], "positive": sentences[j]} for i, j in ((0, 1), (1, 3), (2, 4), (5, 6), (1, 0))]


@pytest.mark.parametrize("transitive", [False, True])
def test_values_are_those_of_sentence_transformers(encoder, examples_of, sentences, peer_of, transitive):
    peer = peer_of(encoder)
    from sentence_transformers.sentence_transformer.evaluation import ParaphraseMiningEvaluator

    evaluator = examples_of(ParaphraseMining, pairs(sentences), name="heap", transitive=transitive)
    ours = measured(encoder, [evaluator], "end")
    duplicates = [(row["anchor"], row["positive"]) for row in pairs(sentences)]
    texts = {text: text for text in sentences}
    theirs = ParaphraseMiningEvaluator(texts, duplicates, add_transitive_closure=transitive, write_csv=False)(peer)
    del theirs["threshold"]
    assert ours == {f"heap/{name}": pytest.approx(value, abs=1e-6) for name, value in theirs.items()}


def test_closure_adds_paraphrases_of_paraphrases(examples_of, sentences):
    _, rows = examples_of(ParaphraseMining, pairs(sentences))

    def found(transitive):
        texts, listed = paraphrases(rows, transitive)
        return {tuple(sorted(sentences.index(texts[place]) for place in pair)) for pair in listed}

    assert found(False) == {(0, 1), (1, 3), (2, 4), (5, 6)}
    assert found(True) == found(False) | {(0, 3)}


def test_a_pair_beyond_the_nearest_is_not_found(examples_of, values):
    rows = [{"anchor": "a", "positive": "b"}, {"anchor": "c", "positive": "d"}]
    vectors = {"a": [1.0, 0], "b": [0.8, 0.6], "c": [1.0, 0.1], "d": [0.0, 1]}  # the nearest are ac, bc, ca, db
    near = values(*examples_of(ParaphraseMining, rows, top_k=1), vectors, "cosine")
    assert set(near.values()) == {0.0}
    far = values(*examples_of(ParaphraseMining, rows, top_k=3), vectors, "cosine")
    assert far["average_precision"] == pytest.approx((1 / 3 + 2 / 5) / 2)


def test_resampled_pairs_count_as_often_as_both_sentences(examples_of):
    rows = [{"anchor": "a", "positive": "b"}, {"anchor": "c", "positive": "d"}]
    evaluator, examples = examples_of(ParaphraseMining, rows)
    vectors = {"a": [1.0, 0], "b": [1.0, 0.5], "c": [0.0, 1], "d": [0.6, 1]}

    def embed(role, texts):
        return np.array([vectors[text] for text in texts], dtype=np.float32)

    found = evaluator.measure(examples, embed, "cosine")["average_precision"]
    # b-d is nearest of all but is none; twice b makes it, and a-b, count twice
    assert found.at(np.array([1.0, 1, 1, 1])) == found.value
    without_c = found.at(np.array([1.0, 2, 0, 1]))
    order = sorted((("ab", 1, 2), ("bd", 0, 2), ("ad", 0, 1)), key=lambda pair: -cosine(*(vectors[x] for x in pair[0])))
    hits = total = precision = 0
    for _, right, times in order:
        total += times
        hits += right * times
        precision += right * times * hits / total
    assert without_c == pytest.approx(precision / 2)


def cosine(one, other):
    return np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
