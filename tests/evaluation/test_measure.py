"""Evaluators share embeddings, take the prompts of their roles, and leave the encoder as it was."""

import numpy as np
import pytest
import torch
from measured import measured

from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.errors import DivergedError
from stfit.evaluation.evaluators.similarity import Similarity
from stfit.evaluation.evaluators.triplet import TripletAccuracy
from stfit.evaluation.measure import known_metrics, main_metrics
from stfit.similarity import SIMILARITIES, pairwise_similarity

PROMPTS = {"query": "find: ", "document": "text: "}
TRIPLETS = [
    {"anchor": "rain", "positive": "it rained all day", "negative": "a cat"},
    {"anchor": "cat", "positive": "a cat", "negative": "it rained all day"},
]
PAIRS = [
    {"sentence1": "rain", "sentence2": "a cat", "label": 0.0},
    {"sentence1": "rain", "sentence2": "it rained all day", "label": 1.0},
]


@pytest.fixture
def sent(monkeypatch):
    """Texts that were put through an encoder, prompts included, in order."""
    texts = []

    def watch(encoder):
        tokens = encoder.tokenizer

        def watched(batch):
            texts.extend(batch)
            return tokens(batch)

        monkeypatch.setattr(encoder, "tokenizer", watched)
        return texts

    return watch


def test_shared_texts_are_embedded_once(encoder, examples_of, sent):
    evaluators = [
        examples_of(TripletAccuracy, TRIPLETS),
        examples_of(Similarity, PAIRS),
        examples_of(TripletAccuracy, TRIPLETS),
    ]
    texts = sent(encoder)
    measured(encoder, evaluators, "end")
    assert sorted(texts) == ["a cat", "cat", "it rained all day", "rain"]


def test_every_matryoshka_prefix_is_measured_from_one_embedding_of_each_text(encoder, examples_of, sent):
    evaluators = [examples_of(Similarity, PAIRS, name="pairs"), examples_of(TripletAccuracy, TRIPLETS, name="kept")]
    texts = sent(encoder)
    found = measured(encoder, evaluators, "end", dims=[64, 32, 8])
    assert sorted(texts) == ["a cat", "cat", "it rained all day", "rain"]
    encoder.config.truncate_dim = 8
    cut = measured(encoder, evaluators, "end")
    assert found["pairs@32/spearman_dot"] == found["pairs/spearman_dot"]  # all that the model has
    assert {name: found[name.replace("/", "@8/")] for name in cut} == pytest.approx(cut, abs=1e-6)
    assert {name.partition("/")[0] for name in found} == {"pairs", "pairs@32", "pairs@8", "kept", "kept@32", "kept@8"}
    assert set(known_metrics([evaluator for evaluator, _ in evaluators], "end", [32, 8])) == set(found)


def test_each_role_has_its_prompt(tiny_base, examples_of, sent):
    encoder = build_encoder(Model(base=str(tiny_base("bert")), prompts=PROMPTS))
    texts = sent(encoder)
    measured(encoder, [examples_of(TripletAccuracy, TRIPLETS)], "end")
    assert texts == ["find: rain", "find: cat", "text: it rained all day", "text: a cat"]


def test_recipe_may_choose_other_prompts(tiny_base, examples_of, sent):
    encoder = build_encoder(Model(base=str(tiny_base("bert")), prompts=PROMPTS))
    texts = sent(encoder)
    evaluator = examples_of(Similarity, PAIRS, prompts={"sentence1": "query"})
    measured(encoder, [evaluator], "end")
    assert texts == ["find: rain", "a cat", "it rained all day"]


def test_only_evaluators_of_the_moment_run(encoder, examples_of):
    evaluators = [
        examples_of(TripletAccuracy, TRIPLETS, name="always"),
        examples_of(TripletAccuracy, TRIPLETS, name="first", when=["start"]),
    ]
    assert {name.split("/")[0] for name in measured(encoder, evaluators, "start")} == {"always", "first"}
    assert {name.split("/")[0] for name in measured(encoder, evaluators, "end")} == {"always"}


def test_main_metric_is_that_of_the_models_own_similarity(examples_of):
    evaluators = [examples_of(Similarity, PAIRS, name="pairs"), examples_of(TripletAccuracy, TRIPLETS, name="kept")]
    for similarity in SIMILARITIES:
        assert main_metrics(evaluators, similarity) == [f"pairs/spearman_{similarity}", f"kept/accuracy_{similarity}"]


def test_measuring_draws_no_random_number_and_keeps_training_mode(encoder, examples_of):
    encoder.train()
    evaluators = [examples_of(TripletAccuracy, TRIPLETS)]
    before = torch.get_rng_state()
    assert measured(encoder, evaluators, "during") == measured(encoder, evaluators, "during")
    assert encoder.training
    assert torch.equal(torch.get_rng_state(), before)


def test_embeddings_that_are_no_numbers_are_not_measured(encoder, examples_of):
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        measured(encoder, [examples_of(Similarity, PAIRS)], "end")


def test_an_overflow_in_float16_advises_another_precision(encoder, examples_of):
    encoder.precision = "float16"
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"set train\.precision to bfloat16"):
        measured(encoder, [examples_of(Similarity, PAIRS)], "end")


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_are_those_of_their_definitions(name):
    one, other = np.random.default_rng(0).normal(size=(2, 5, 3))
    expected = {
        "cosine": [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(one, other, strict=True)],
        "dot": [x @ y for x, y in zip(one, other, strict=True)],
        "euclidean": [-np.sqrt(((x - y) ** 2).sum()) for x, y in zip(one, other, strict=True)],
        "manhattan": [-abs(x - y).sum() for x, y in zip(one, other, strict=True)],
    }
    np.testing.assert_allclose(pairwise_similarity(name, *map(torch.from_numpy, (one, other))), expected[name])
