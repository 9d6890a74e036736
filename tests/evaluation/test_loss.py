"""The loss on other rows is the loss of training, of batches that are formed alike."""

import json

import numpy as np
import pytest
import torch
from measured import measured
from pydantic import ValidationError

from stfit.errors import DataError, RecipeError
from stfit.evaluation.evaluators.loss import LossOnRows
from stfit.evaluation.measure import measure
from stfit.recipe.load import load_recipe

IN_BATCH = "multiple_negatives_ranking"


def rows_of(sentences):
    return [
        {"anchor": text, "positive": f"{text} indeed", "negative": f"no {text}", "label": i % 3 / 2}
        for i, text in enumerate(sentences)
    ]


def cosines(encoder, left, right, similarity_scale=20.0):
    first, second = (torch.from_numpy(encoder.encode(texts, normalize=True)) for texts in (left, right))
    return similarity_scale * first @ second.T


def test_one_batch_of_all_rows_is_the_loss_of_those_rows(encoder, examples_of, sentences) -> None:
    rows = rows_of(sentences)
    evaluator = examples_of(LossOnRows, rows, name="x", format="positive_pair", loss=IN_BATCH, batch_size=1000)
    score = cosines(encoder, *([row[role] for row in rows] for role in ("anchor", "positive")))
    expected = torch.nn.functional.cross_entropy(score, torch.arange(len(rows))).item()
    assert measured(encoder, [evaluator], "end") == {"x/negative_loss": pytest.approx(-expected, rel=1e-5)}


def test_batches_are_rows_and_a_smaller_last_one_does_not_count(encoder, examples_of, sentences) -> None:
    evaluator = examples_of(
        LossOnRows, rows_of(sentences), name="x", format="positive_pair", loss=IN_BATCH, batch_size=3
    )
    found = measure(encoder, [evaluator], "end")["x/negative_loss"]
    assert found.rows == len(sentences) // 3
    assert found.value == pytest.approx(found.value_r.mean())
    again = measure(encoder, [evaluator], "end")["x/negative_loss"]
    np.testing.assert_array_equal(found.value_r, again.value_r)


def test_labels_scores_and_missing_negatives_are_those_of_the_rows(encoder, examples_of, sentences) -> None:
    rows = rows_of(sentences)
    scored = examples_of(
        LossOnRows, rows, name="x", format="labeled_pair", loss="cosine_similarity", batch_size=1000,
        columns={"sentence1": "anchor", "sentence2": "positive"},
    )  # fmt: skip
    cosine = cosines(encoder, [row["anchor"] for row in rows], [row["positive"] for row in rows], 1.0).diag()
    expected = (cosine - torch.tensor([row["label"] for row in rows])).square().mean().item()
    assert measured(encoder, [scored], "end")["x/negative_loss"] == pytest.approx(-expected, rel=1e-5)

    some = [row | {"others": [f"not {i}", f"never {i}"][: 1 + i % 2]} for i, row in enumerate(rows)]
    settings = {"name": "x", "format": "triplet", "batch_size": 1000}
    settings["columns"] = {"negative": "others[:2]"}
    terms = [{"type": IN_BATCH}, {"type": "global_orthogonal_regularization", "weight": 0.5}]
    both = measured(encoder, [examples_of(LossOnRows, some, loss=terms, **settings)], "end")["x/negative_loss"]
    one = measured(encoder, [examples_of(LossOnRows, some, loss=IN_BATCH, **settings)], "end")["x/negative_loss"]
    assert both < one


def test_prefixes_are_measured_one_by_one(encoder, examples_of, sentences) -> None:
    loss = {"type": IN_BATCH, "matryoshka_dims": [32, 4]}
    settings = {"name": "x", "format": "positive_pair", "batch_size": 1000}
    found = measured(encoder, [examples_of(LossOnRows, rows_of(sentences), loss=loss, **settings)], "end", [32, 4])
    plain = measured(encoder, [examples_of(LossOnRows, rows_of(sentences), loss=IN_BATCH, **settings)], "end", [4])
    assert found == plain | {"x@32/negative_loss": found["x/negative_loss"]}


def test_an_evaluator_has_the_loss_and_the_batches_of_its_recipe(tmp_path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    recipe = {
        "model": {"base": "base"},
        "data": {"dataset": "./rows.jsonl", "format": "triplet", "holdout": {"fraction": 0.5}},
        "loss": {"type": "triplet", "margin": 2.5},
        "train": {"batch_size": 8},
        "eval": [{"type": "loss", "from": "holdout"}, {"type": "loss", "name": "b", "dataset": "d", "loss": IN_BATCH}],
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    first, second = load_recipe(tmp_path / "recipe.yaml").recipe.eval
    assert (first.format, first.loss.margin, first.batch_size) == ("triplet", 2.5, 8)
    assert (second.loss.type, second.batch_size) == (IN_BATCH, 8)
    recipe["objectives"] = [{"data": recipe.pop("data"), "loss": recipe.pop("loss")}]
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    with pytest.raises(RecipeError, match=r"`eval\.0\.format` is missing"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("format", "loss", "message"),
    [
        ("labeled_pair", "softmax", "measure it with `label_accuracy`"),
        ("positive_pair", "cosent", "`cosent` does not support format `positive_pair`"),
        ("positive_pair", {"type": "margin_mse", "teacher": "./t"}, "measure a student with `mse`"),
    ],
)
def test_a_loss_that_needs_more_than_rows_is_refused(format, loss, message) -> None:
    with pytest.raises(ValidationError, match=message):
        LossOnRows.model_validate({"type": "loss", "dataset": "d", "format": format, "loss": loss})


def test_rows_that_do_not_fit_the_loss_are_refused(examples_of, sentences) -> None:
    columns = {"sentence1": "anchor", "sentence2": "positive"}
    with pytest.raises(DataError, match="`contrastive` needs labels that are 0 or 1"):
        examples_of(LossOnRows, rows_of(sentences), format="labeled_pair", loss="contrastive", columns=columns)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (1, {"format": "positive_pair", "loss": IN_BATCH}, "evaluator `x`: 1 examples do not form a batch"),
        (6, {"format": "positive_pair", "loss": IN_BATCH, "batch_size": 1}, "evaluator `x`: 6 examples do not form"),
        (3, {"format": "labeled_text", "loss": "batch_all_triplet", "columns": {"text": "anchor", "label": "label"}},
         "evaluator `x`: 3 examples do not form a batch"),
    ],
)  # fmt: skip
def test_rows_that_form_no_batch_are_refused_before_a_training(examples_of, sentences, rows, settings, message) -> None:
    numbered = [row | {"label": i} for i, row in enumerate(rows_of(sentences)[:rows])]
    with pytest.raises(DataError, match=message):
        examples_of(LossOnRows, numbered, name="x", **settings)


def test_a_mistake_in_the_recipe_is_told_once_and_prompts_go_with_the_format(tmp_path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    recipe = {
        "model": {"base": "base", "prompts": {"q": "ask: "}},
        "data": {"dataset": "./rows.jsonl", "format": "labeled_pair", "prompts": {"sentence1": "q"}},
        "loss": {"type": "cosent", "scal": 3},
        "eval": [
            {"type": "loss", "dataset": "d"},
            {"type": "loss", "name": "b", "dataset": "d", "format": "triplet", "loss": "triplet"},
        ],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    assert len(raised.value.problems) == 1
    path.write_text(json.dumps(recipe | {"loss": "cosent"}))
    first, second = load_recipe(path).recipe.eval
    assert (first.prompts, second.prompts) == ({"sentence1": "q"}, None)
