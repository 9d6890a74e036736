"""Metrics at the best threshold are those of sentence-transformers and scikit-learn, ties included."""

import json

import numpy as np
import pytest
from measured import measured
from sklearn import metrics

from stfit.errors import DataError
from stfit.evaluation.evaluators.binary_classification import BinaryClassification
from stfit.similarity import SIMILARITIES

PEER_KINDS = ("ap", "accuracy", "f1", "precision", "recall", "mcc")


def pairs(sentences, labels):
    return [
        {"sentence1": text, "sentence2": sentences[i - step], "label": labels[(i * step) % len(labels)]}
        for step in (1, 2, 3)
        for i, text in enumerate(sentences)
    ]


def test_values_are_those_of_sentence_transformers(encoder, examples_of, sentences, peer_of):
    peer = peer_of(encoder)
    from sentence_transformers.sentence_transformer.evaluation import BinaryClassificationEvaluator

    rows = pairs(sentences, [1, 0, 0, 1, 0])
    ours = measured(encoder, [examples_of(BinaryClassification, rows, name="qqp")], "end")
    columns = [[row[name] for row in rows] for name in ("sentence1", "sentence2", "label")]
    theirs = BinaryClassificationEvaluator(*columns, similarity_fn_names=list(SIMILARITIES), write_csv=False)(peer)
    assert ours == {
        f"qqp/{kind}_{name}": pytest.approx(theirs[f"{name}_{kind}"], abs=1e-6)
        for kind in PEER_KINDS
        for name in SIMILARITIES
    }


@pytest.mark.parametrize("seed", range(5))
def test_values_are_those_of_scikit_learn_with_ties(examples_of, values, seed):
    random = np.random.default_rng(seed)
    label, score = random.integers(0, 2, 60), random.integers(0, 8, 60)
    rows = [{"sentence1": "one", "sentence2": f"s{value} {i}", "label": int(right)}
            for i, (value, right) in enumerate(zip(score, label, strict=True))]  # fmt: skip
    vectors = {"one": [1.0]} | {row["sentence2"]: [float(value)] for row, value in zip(rows, score, strict=True)}
    found = values(*examples_of(BinaryClassification, rows), vectors)
    at = {threshold: score >= threshold for threshold in range(9)}
    best = max(at.values(), key=lambda chosen: metrics.f1_score(label, chosen))
    assert found["ap_dot"] == pytest.approx(metrics.average_precision_score(label, score), abs=1e-9)
    assert found["accuracy_dot"] == pytest.approx(max((chosen == label).mean() for chosen in at.values()), abs=1e-9)
    assert found["f1_dot"] == pytest.approx(metrics.f1_score(label, best), abs=1e-9)
    assert found["mcc_dot"] == pytest.approx(metrics.matthews_corrcoef(label, best), abs=1e-9)


def test_model_that_gives_one_embedding_to_everything_is_as_good_as_chance(examples_of, values, sentences):
    rows = pairs(sentences, [1, 0, 0])
    found = values(*examples_of(BinaryClassification, rows), {key: [1.0, 2.0] for key in sentences})
    right = np.mean([row["label"] for row in rows])
    for name in SIMILARITIES:
        assert found[f"ap_{name}"] == found[f"precision_{name}"] == pytest.approx(right)
        assert found[f"accuracy_{name}"] == pytest.approx(max(right, 1 - right))
        assert found[f"mcc_{name}"] == 0


@pytest.mark.parametrize(
    ("labels", "message"), [([1], "both labels"), ([0], "both labels"), ([0, 1, 2], "rows? .*label_map")]
)
def test_labels_that_are_not_zero_and_one_are_refused(encoder, examples_of, sentences, labels, message):
    with pytest.raises(DataError, match=message):
        measured(encoder, [examples_of(BinaryClassification, pairs(sentences, labels))], "end")


def test_labels_that_are_neither_are_refused_when_they_are_read(tmp_path):
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "label": i % 2 or 0.5} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="rows 1, 3"):
        BinaryClassification(dataset=str(tmp_path / "rows.jsonl"), split="train").load(0, None)
