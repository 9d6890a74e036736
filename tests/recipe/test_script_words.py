"""Who comes from a script gets an answer to every name of it."""

import dataclasses

import pytest

from stfit.errors import RecipeError
from stfit.evaluation.registry import EVALUATORS
from stfit.losses.registry import LOSSES
from stfit.recipe.load import load_recipe
from stfit.recipe.script_words import ANSWERS, CLASSES, KEYS

OWN = ("learning_rate", "max_grad_norm", "max_steps", "prompts", "seed", "warmup_ratio", "warmup_steps", "weight_decay")
"""Arguments of a trainer that have the same name in a recipe."""
RECIPE = "model: {base: b}\ndata: {dataset: ./d.jsonl, format: positive_pair}\n"


def names_of(package):
    module = pytest.importorskip(f"sentence_transformers.sentence_transformer.{package}")
    ending = {"losses": ("Loss", "LossInBatchNegatives"), "evaluation": ("Evaluator", "EvaluatorFromDataFrame")}[
        package
    ]
    return {name for name in dir(module) if name.endswith(ending)} - {"BaseEvaluator", "SentenceEvaluator"}


def refused(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(RECIPE + text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "recipe.yaml")
    return str(caught.value)


def test_every_argument_of_the_trainers_has_an_answer():
    st = pytest.importorskip("sentence_transformers")
    arguments = {field.name for field in dataclasses.fields(st.SentenceTransformerTrainingArguments)}
    assert arguments - {*KEYS, *ANSWERS, *OWN} == set()


@pytest.mark.parametrize(("package", "choices"), [("losses", LOSSES), ("evaluation", EVALUATORS)])
def test_every_class_has_an_answer(package, choices):
    aliases = {name for choice in choices for name in choice.aliases}
    assert names_of(package) - aliases - {*CLASSES} == set()


def test_no_name_has_two_answers():
    aliases = {name for choice in (*LOSSES, *EVALUATORS) for name in choice.aliases}
    assert not aliases & {*CLASSES}
    assert len({*KEYS} & {*ANSWERS}) == len({*KEYS, *ANSWERS} & {*OWN}) == 0


def test_the_answer_stands_in_the_message(tmp_path):
    for key, answer in ANSWERS.items():
        assert f"unknown key `train.{key}`; {answer}" in refused(tmp_path, f"loss: cosent\ntrain: {{{key}: 1}}\n")
    for name, answer in CLASSES.items():
        evaluator = f"loss: cosent\neval: [{{type: {name}}}]\n"
        assert answer in refused(tmp_path, evaluator if "Evaluator" in name else f"loss: {name}\n")
    assert "it is called `batch_size` in stfit" in refused(tmp_path, "loss: cosent\ntrain: {train_batch_size: 1}\n")
