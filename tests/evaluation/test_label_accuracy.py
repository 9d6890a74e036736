"""The classifier of the softmax loss is saved beside the model, and gives pairs the classes it gave in training."""

import json

import numpy as np
import pytest
import torch
from measured import measured

from stfit.commands.evaluate import evaluate
from stfit.commands.train import train
from stfit.errors import DataError, ModelError, RecipeError
from stfit.evaluation.evaluators.label_accuracy import LabelAccuracy
from stfit.evaluation.measure import measure
from stfit.losses.softmax_classifier import FILE, NamedHead, SoftmaxHead, load_head, save_head
from stfit.publish.allowlist import is_allowed
from stfit.recipe.load import load_recipe

CLASSES = ["contradiction", "entailment", "neutral"]


def head_of(dim: int, classes=CLASSES, **inputs) -> NamedHead:
    torch.manual_seed(0)
    inputs = {"embeddings": True, "difference": True, "product": False} | inputs
    return NamedHead(SoftmaxHead(dim, 3, **inputs), classes)


def rows_of(sentences, classes=CLASSES):
    return [
        {"sentence1": text, "sentence2": f"{text} indeed", "label": classes[i % len(classes)]}
        for i, text in enumerate(sentences)
    ]


def test_accuracy_is_that_of_the_classifier(encoder, examples_of, sentences) -> None:
    named = head_of(encoder.output_dim)
    evaluator = examples_of(LabelAccuracy, rows_of(sentences), name="x")
    first, second = (
        torch.from_numpy(encoder.encode([row[role] for row in rows_of(sentences)]))
        for role in ("sentence1", "sentence2")
    )
    with torch.no_grad():
        predicted = named.head.classifier(torch.cat([first, second, (first - second).abs()], dim=1)).argmax(dim=1)
    expected = np.mean([CLASSES[n] == CLASSES[i % 3] for i, n in enumerate(predicted.tolist())])
    found = measure(encoder, [evaluator], "end", head=named)["x/accuracy"]
    assert (found.value, found.rows) == (pytest.approx(expected), len(sentences))


def test_classes_are_known_by_their_names(encoder, examples_of, sentences) -> None:
    """Rows of fewer classes number them otherwise; a class that training did not have is never right."""
    named = head_of(encoder.output_dim)
    two = examples_of(LabelAccuracy, rows_of(sentences, CLASSES[1:]), name="x")
    right = measure(encoder, [two], "end", head=named)["x/accuracy"].value_r
    whole = examples_of(LabelAccuracy, rows_of(sentences, CLASSES[1:] + CLASSES[1:]), name="x")
    np.testing.assert_array_equal(measure(encoder, [whole], "end", head=named)["x/accuracy"].value_r, right)
    unknown = examples_of(LabelAccuracy, rows_of(sentences, ["so", "not so"]), name="x")
    assert measure(encoder, [unknown], "end", head=named)["x/accuracy"].value == 0


@pytest.mark.parametrize(("known", "classes"), [(CLASSES, [0, 1, 2]), ([], CLASSES)])
def test_numbers_of_classes_are_not_compared_with_names(encoder, examples_of, sentences, known, classes) -> None:
    evaluator = examples_of(LabelAccuracy, rows_of(sentences, classes), name="x")
    with pytest.raises(DataError, match="write the same with `label_map`"):
        measure(encoder, [evaluator], "end", head=head_of(encoder.output_dim, known))


def test_without_a_classifier_there_is_no_accuracy(encoder, examples_of, sentences) -> None:
    with pytest.raises(ModelError, match="trained with loss `softmax`"):
        measured(encoder, [examples_of(LabelAccuracy, rows_of(sentences), name="x")], "end")


@pytest.mark.parametrize("inputs", [{}, {"product": True}, {"embeddings": False}])
def test_a_saved_classifier_is_the_same_again(tmp_path, inputs) -> None:
    named = head_of(8, **inputs)
    save_head(tmp_path, named)
    again = load_head(tmp_path)
    assert again is not None
    assert (again.classes, again.head.embedding_dim) == (CLASSES, 8)
    first, second = torch.rand(2, 5, 8)
    torch.testing.assert_close(again.head.logits(first, second), named.head.logits(first, second), rtol=0, atol=0)
    assert is_allowed(FILE)
    (tmp_path / FILE).write_bytes(b"{}")
    with pytest.raises(ModelError, match="can't be read"):
        load_head(tmp_path)


@pytest.fixture
def recipe(tmp_path, sentences):
    rows = rows_of(sentences) * 3
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = {
        "model": {"base": {"type": "scratch", "hidden_size": 16, "num_layers": 1, "num_heads": 2}},
        "data": {"dataset": "./rows.jsonl", "format": "labeled_pair"},
        "loss": "softmax",
        "train": {"max_steps": 40, "batch_size": 8, "learning_rate": 0.005, "eval_every_steps": 20, "device": "cpu"},
        "eval": [{"type": "label_accuracy", "name": "x", "dataset": "./rows.jsonl", "split": "train"}],
        "gate": [{"metric": "x/accuracy", "min": 0.4}],
    }

    def write(**sections):
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps(written | sections))
        return path

    return write


@pytest.mark.parametrize("best", [False, True])
def test_eval_of_a_run_finds_what_training_found_also_for_the_best_model(recipe, tmp_path, best) -> None:
    settings = {"max_steps": 40, "batch_size": 8, "learning_rate": 0.005, "eval_every_steps": 20, "device": "cpu"}
    path = recipe(train=settings | ({"best": "x/accuracy"} if best else {}))
    result = list(train(load_recipe(path), tmp_path / "runs"))[-1].result
    found = evaluate(result["model"], load_recipe(path).recipe)[0]
    assert found["metrics"] == result["metrics"]
    assert found["gate"][0]["value"] == result["metrics"]["x/accuracy"] > result["baseline"]["x/accuracy"]


def test_a_recipe_without_softmax_is_refused(recipe, tmp_path) -> None:
    with pytest.raises(RecipeError, match="needs one loss softmax, which trains a classifier"):
        list(train(load_recipe(recipe(data={"dataset": "./rows.jsonl", "format": "positive_pair"},
             loss="multiple_negatives_ranking")), tmp_path / "runs"))  # fmt: skip
