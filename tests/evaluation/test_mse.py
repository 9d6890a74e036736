"""The error of a student equals that of sentence-transformers, and is 0 for its own teacher."""

import json

import numpy as np
import pytest
from measured import measured

from stfit.commands.check import check
from stfit.encoder.build import load_encoder
from stfit.errors import ModelError
from stfit.evaluation.evaluators.mse import MSEToTeacher
from stfit.evaluation.measure import measure


def rows_of(sentences):
    return [{"anchor": text, "positive": f"{text} indeed"} for text in sentences]


def test_values_are_those_of_sentence_transformers(encoder, tiny_base, examples_of, peer_of, sentences) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import MSEEvaluator

    teacher, rows = tiny_base("roberta"), rows_of(sentences)
    evaluator = examples_of(MSEToTeacher, rows, name="student", teacher=str(teacher))
    assert load_encoder(teacher).output_dim == encoder.output_dim
    sources, targets = ([row[role] for row in rows] for role in ("anchor", "positive"))
    peer = SentenceTransformer(str(teacher), device="cpu")
    theirs = MSEEvaluator(sources, targets, teacher_model=peer, write_csv=False)(peer_of(encoder))
    found = measure(encoder, [evaluator], "end")["student/negative_mse"]
    assert found.value == pytest.approx(theirs["negative_mse"], rel=1e-5)
    assert found.rows == len(rows)


def test_a_model_is_no_way_from_itself_at_any_prefix(encoder, tiny_base, examples_of, sentences) -> None:
    rows = [{"text": text} for text in sentences]
    columns = {"anchor": "text", "positive": "text"}
    evaluator = examples_of(MSEToTeacher, rows, name="self", teacher=str(tiny_base("bert")), columns=columns)
    found = measured(encoder, [evaluator], "end", [4])
    np.testing.assert_allclose(list(found.values()), 0, atol=1e-9)
    assert {*found} == {"self/negative_mse", "self@4/negative_mse"}


def test_a_recipe_may_compare_the_same_texts(tiny_base, tmp_path, sentences) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(sentences)))
    evaluator = {"type": "mse", "dataset": "./rows.jsonl", "split": "train", "teacher": str(tiny_base("bert"))}
    recipe = {
        "model": {"base": str(tiny_base("bert"))},
        "data": {"dataset": "./rows.jsonl", "format": "positive_pair"},
        "loss": "multiple_negatives_ranking",
        "eval": [evaluator | {"columns": {"anchor": "anchor", "positive": "anchor"}}],
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert not check(tmp_path / "recipe.yaml", [])["errors"]
    recipe["model"] = {"base": {"type": "scratch", "hidden_size": 64, "num_layers": 1, "num_heads": 2}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    (problem,) = check(tmp_path / "recipe.yaml", [])["errors"]
    assert "needs a teacher with as many dimensions" in problem.message


def test_a_teacher_with_fewer_dimensions_is_refused(encoder, tiny_base, examples_of, sentences) -> None:
    evaluator, _ = examples_of(MSEToTeacher, rows_of(sentences), teacher=str(tiny_base("bert")))
    with pytest.raises(ModelError, match="as many dimensions, but it has 16 and the model 32"):
        evaluator.require_teacher_dim(32, 16)
    with pytest.raises(ValueError, match="not on the Hub"):
        MSEToTeacher.model_validate({"dataset": "rows", "teacher": "/a/teacher", "teacher_revision": "main"})
