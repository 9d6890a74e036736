"""Translation accuracy equals sentence-transformers' evaluator in both directions."""

import pytest
from measured import measured

from stfit.evaluation.evaluators.translation import Translation


def test_values_are_those_of_sentence_transformers(encoder, examples_of, sentences, peer_of):
    peer = peer_of(encoder)
    from sentence_transformers.sentence_transformer.evaluation import TranslationEvaluator

    sources, targets = sentences, [f"{text} indeed" for text in sentences[:-1]] + [f"{sentences[0]} indeed"]
    rows = [{"anchor": one, "positive": other} for one, other in zip(sources, targets, strict=True)]
    ours = measured(encoder, [examples_of(Translation, rows, name="news")], "end")
    theirs = TranslationEvaluator(sources, targets, write_csv=False)(peer)
    assert ours == {f"news/{name}": pytest.approx(value, abs=1e-6) for name, value in theirs.items()}
    assert 0 < ours["news/mean_accuracy"] < 1


def test_each_direction_is_measured_and_equal_texts_are_one(examples_of, values):
    rows = [{"anchor": "a", "positive": "x"}, {"anchor": "b", "positive": "y"}, {"anchor": "c", "positive": "x"}]
    vectors = {"a": [1.0, 0], "b": [1.0, 0.1], "c": [2.0, 0], "x": [1.0, 0], "y": [0.0, 1]}
    found = values(*examples_of(Translation, rows), vectors)
    assert found["src2trg_accuracy"] == pytest.approx(2 / 3)  # all find x
    assert found["trg2src_accuracy"] == pytest.approx(2 / 3)  # x finds c, whose text is not a; y finds b
    assert found["mean_accuracy"] == pytest.approx(2 / 3)


def test_no_prompt_stands_before_a_translation_unless_the_recipe_says_so(tiny_base, examples_of):
    from stfit.encoder.build import build_encoder
    from stfit.encoder.config import Model
    from stfit.evaluation.measure import prompt_of

    encoder = build_encoder(Model(base=str(tiny_base("bert")), prompts={"query": "ask: ", "document": "read: "}))
    for settings, expected in (({}, ""), ({"prompts": {"anchor": "query"}}, "ask: ")):
        evaluator, _ = examples_of(Translation, [{"anchor": "a b", "positive": "c d"}], **settings)
        assert prompt_of(evaluator, encoder, "anchor") == expected
        assert prompt_of(evaluator, encoder, "positive") == ""
