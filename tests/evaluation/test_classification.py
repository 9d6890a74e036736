"""Classification equals scikit-learn on the same embeddings; classes are matched by their names."""

import json

import numpy as np
import pytest
from sklearn import linear_model, metrics, neighbors

from stfit.errors import DataError
from stfit.evaluation.evaluators.classification import Classification, macro_f1, v_measure

NAMES = ["cat", "dog", "eel", "fox"]


@pytest.fixture
def rows(tmp_path):
    """Loads texts of four classes; `write` changes a row before it is written."""

    def load(write=lambda row, split: row, **settings):
        random = np.random.default_rng(0)
        for split, many in (("train", 60), ("test", 40)):
            drawn = [{"text": f"{split} {i}", "label": NAMES[random.integers(4)]} for i in range(many)]
            lines = [json.dumps(write(row, split)) + "\n" for row in drawn]
            (tmp_path / f"{split}.jsonl").write_text("".join(lines))
        evaluator = Classification.model_validate({"dataset": str(tmp_path), **settings})
        return evaluator, evaluator.load(0, None)

    return load


def noisy(rows, spread=1.0):
    """Embeddings around one direction of each class."""
    random = np.random.default_rng(1)
    places = {name: random.normal(size=6) for name in range(8)}
    vectors = {}
    for examples in (rows.known, rows.measured):
        for text, label in zip(examples.column("text"), examples.label, strict=True):
            vectors[text] = (places[int(label)] + random.normal(scale=spread, size=6)).tolist()
    return vectors


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_values_are_those_of_scikit_learn(rows, values, similarity):
    evaluator, loaded = rows(k=1)
    vectors = noisy(loaded)
    found = values(evaluator, loaded, vectors, similarity)
    known, measured = (
        np.array([vectors[text] for text in examples.column("text")], dtype=np.float32)
        for examples in (loaded.known, loaded.measured)
    )
    label, truth = loaded.known.label, loaded.measured.label
    by_neighbours = neighbors.KNeighborsClassifier(1, metric=similarity).fit(known, label).predict(measured)
    by_regression = linear_model.LogisticRegression(max_iter=1000).fit(known, label).predict(measured)
    assert found == {
        "knn_accuracy": pytest.approx(metrics.accuracy_score(truth, by_neighbours), abs=1e-9),
        "knn_f1": pytest.approx(metrics.f1_score(truth, by_neighbours, average="macro"), abs=1e-9),
        "logistic_accuracy": pytest.approx(metrics.accuracy_score(truth, by_regression), abs=1e-9),
        "logistic_f1": pytest.approx(metrics.f1_score(truth, by_regression, average="macro"), abs=1e-9),
        "v_measure": found["v_measure"],
    }
    assert 0.3 < found["knn_accuracy"] < 1


@pytest.mark.parametrize("seed", range(4))
def test_scores_of_groupings_are_those_of_scikit_learn(seed):
    label, other = np.random.default_rng(seed).integers(0, 5, (2, 50))
    assert v_measure(label, other).value == pytest.approx(metrics.v_measure_score(label, other), abs=1e-9)
    assert macro_f1(label, other).value == pytest.approx(metrics.f1_score(label, other, average="macro"), abs=1e-9)
    assert v_measure(label, label + 9).value == pytest.approx(1)
    assert v_measure(label, np.zeros(50, dtype=int)).value == 0


def test_clear_classes_score_one(rows, values):
    evaluator, loaded = rows()
    assert values(evaluator, loaded, noisy(loaded, spread=0.01), "cosine") == {
        name: pytest.approx(1.0) for name in evaluator.metrics
    }


def test_of_equally_many_votes_the_nearest_wins(rows, values):
    evaluator, loaded = rows(k=2)
    apart = {text: [float(i), 1.0] for i, text in enumerate(loaded.known.column("text"))}
    asked = {text: [0.0, 1.0] for text in loaded.measured.column("text")}
    found = values(evaluator, loaded, apart | asked, "euclidean")
    nearest = loaded.known.label[0]
    assert found["knn_accuracy"] == pytest.approx((loaded.measured.label == nearest).mean())


def test_classes_are_matched_by_name_where_a_split_lacks_one(rows, values):
    evaluator, loaded = rows(
        lambda row, split: row | {"label": row["label"].replace("cat", "fox")} if split == "test" else row
    )
    assert loaded.measured.label.min() == 1  # dog; numbered alone, it would be 0
    assert values(evaluator, loaded, noisy(loaded, 0.01), "cosine")["knn_accuracy"] == 1


def test_a_class_that_nobody_knows_is_never_right(rows, values):
    evaluator, loaded = rows(
        lambda row, split: row | {"label": row["label"].replace("cat", "gnu")} if split == "test" else row
    )
    found = values(evaluator, loaded, noisy(loaded, 0.01), "cosine")
    assert found["knn_accuracy"] == found["logistic_accuracy"] == pytest.approx((loaded.measured.label < 4).mean())


@pytest.mark.parametrize("numbers_in", ["train", "test"])
def test_numbers_and_numerals_are_the_same_classes(rows, numbers_in):
    """As text, "10" comes before "9"."""

    def number(row, split):
        label = NAMES.index(row["label"]) + 8
        return row | {"label": label if split == numbers_in else str(label)}

    _, expected = rows()
    _, loaded = rows(number)
    names = loaded.known.label_names or [str(number) for number in range(12)]
    assert [names[label] for label in loaded.measured.label] == [str(label + 8) for label in expected.measured.label]


def test_classes_that_nobody_learns_or_that_are_alone_are_said(rows):
    evaluator, loaded = rows(
        lambda row, split: row | {"label": "dog"} if (row["label"], split) == ("fox", "train") else row
    )
    (unknown,) = evaluator.problems_of(loaded)
    foxes = sum(loaded.measured.label > loaded.known.label.max())
    assert unknown.message.startswith(f"{foxes} of 40 texts have a class that no text to learn from has (rows")
    evaluator, loaded = rows(lambda row, split: row | {"label": "dog"} if split == "test" else row)
    (alone,) = evaluator.problems_of(loaded)
    assert "one class" in alone.message
    assert not evaluator.problems_of(rows()[1])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda row, split: row | {"label": "cat"} if split == "train" else row, "several classes"),
        (lambda row, split: row | {"label": 0.5}, "not scores"),
        (lambda row, split: row if split == "train" else row | {"label": 0.5}, "not scores"),
        (
            lambda row, split: row if split == "train" else row | {"label": 1},
            r"none of the classes to measure \(0, 1\)",
        ),
    ],
)
def test_labels_that_can_not_be_told_apart_are_refused(rows, write, message):
    with pytest.raises(DataError, match=message):
        rows(write)


def test_texts_to_learn_from_and_to_measure_must_differ(rows):
    evaluator, loaded = rows()
    assert evaluator.problems_of(loaded) == []
    evaluator, loaded = rows(train_split="train[:80%]", split="train[50%:]")
    (problem,) = evaluator.problems_of(loaded)
    assert problem.code == "shared-texts"
    assert problem.message.startswith("18 of 30 texts to classify are among those to learn from (rows 31, 32,")
    with pytest.raises(DataError, match="would classify the texts that it learns from"):
        rows(train_split="train[:50%]", split="train[:50%]")


@pytest.mark.parametrize(
    ("methods", "main", "names"),
    [
        (["clusters"], "v_measure", {"v_measure"}),
        (["logistic", "knn"], "logistic_accuracy", {"knn_accuracy", "knn_f1", "logistic_accuracy", "logistic_f1"}),
    ],
)
def test_only_the_methods_that_are_chosen_are_measured(rows, values, methods, main, names):
    evaluator, loaded = rows(methods=methods)
    everything, _ = rows()
    vectors = noisy(loaded)
    found = values(evaluator, loaded, vectors, "cosine")
    assert (evaluator.main_metric, set(evaluator.metrics), set(found)) == (main, names, names)
    assert found.items() <= values(everything, loaded, vectors, "cosine").items()


def test_a_limit_draws_the_texts_to_learn_from(rows):
    _, whole = rows()
    _, limited = rows(train_limit=20)
    assert len(limited.known) == 20
    assert set(limited.known.column("text")) < set(whole.known.column("text"))
    assert limited.known.column("text") != whole.known.column("text")[:20]
    assert limited.measured.column("text") == whole.measured.column("text")
