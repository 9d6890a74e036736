"""Reranking equals sentence-transformers' evaluator; rows of one anchor are one query."""

import numpy as np
import pytest
from measured import measured

from stfit.evaluation.evaluators.reranking import Reranking
from stfit.similarity import SIMILARITIES


@pytest.mark.parametrize("k", [10, 2])
def test_values_are_those_of_sentence_transformers(encoder, examples_of, sentences, peer_of, k):
    peer = peer_of(encoder)
    from sentence_transformers.sentence_transformer.evaluation import RerankingEvaluator

    samples = [
        {"query": sentences[i], "positive": sentences[i + 1 : i + 1 + many], "negative": others}
        for i, many, others in ((0, 2, sentences[3:]), (2, 1, sentences[4:]), (4, 1, sentences[:3]))
    ]
    rows = [{"anchor": sample["query"], "positive": sample["positive"], "negative": sample["negative"]}
            for sample in samples]  # fmt: skip
    columns = {"positive": "positive[*]", "negative": "negative[:9]"}
    ours = measured(encoder, [examples_of(Reranking, rows, columns=columns, name="few", k=k)], "end")
    theirs = RerankingEvaluator(samples, at_k=k, write_csv=False)(peer)
    assert ours == {f"few/{name}": pytest.approx(value, abs=1e-6) for name, value in theirs.items()}


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_ties_count_against_the_model(examples_of, values, similarity):
    rows = [{"anchor": "a", "positive": "p", "negative": ["n", "m"]}]
    evaluator, examples = examples_of(Reranking, rows, columns={"negative": "negative[:2]"})
    found = values(evaluator, examples, {text: [1.0, 1.0] for text in "apnm"}, similarity)
    assert found == {
        "ndcg@10": pytest.approx(1 / np.log2(4)),
        "mrr@10": pytest.approx(1 / 3),
        "map": pytest.approx(1 / 3),
    }


def test_a_candidate_that_is_also_named_as_right_is_right(examples_of, values):
    rows = [{"anchor": "a", "positive": "p", "negative": "q"}, {"anchor": "a", "positive": "q", "negative": "n"}]
    found = values(*examples_of(Reranking, rows), {"a": [1.0], "p": [3.0], "q": [2.0], "n": [1.0]})
    assert set(found.values()) == {1.0}


def test_training_must_not_contain_the_queries_but_may_contain_the_candidates(examples_of):
    evaluator, examples = examples_of(Reranking, [{"anchor": "a", "positive": "p", "negative": "n"}])
    assert {role: column.texts for role, column in evaluator.columns_of(examples).items()} == {"anchor": ["a"]}
