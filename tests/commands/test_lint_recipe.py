"""What a recipe can't mean is found without data; a recipe without a mistake has no findings."""

from dataclasses import replace

import pytest
import yaml
from processes import run_group

from stfit.encoder.folder.inspect import inspect_model
from stfit.encoder.folder.model_config import ModelConfig, ModelInfo
from stfit.encoder.layers import Normalize
from stfit.errors import MAX_SHOWN
from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import Recipe
from stfit.workflows.check.findings import lint_recipe
from stfit.workflows.check.lint import ERRORS, WARNINGS, missing_trackers
from stfit.workflows.check.lint_evaluation import unknown_metrics
from stfit.workflows.check.lint_losses import few_negatives, prefixes_of_weights

SENTENCE_MODEL = ModelInfo(
    max_seq_length=64,
    positions=64,
    hidden_size=32,
    num_layers=2,
    parameters=1000,
    config=ModelConfig(pooling=("mean",), layers=[Normalize()], prompts={"query": "ask: ", "passage": "text: "}),
)
SCRATCH = {"type": "scratch", "hidden_size": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 100}
RANKING = {"type": "multiple_negatives_ranking"}
TRIPLET = {"type": "triplet", "distance": "euclidean", "margin": 1.0}
EVALUATOR = {"type": "triplet", "name": "kept", "dataset": "/kept.csv", "split": "validation"}
GOOD = {
    "name": "good",
    "model": {"base": "/base", "max_seq_length": 64, "prompts": {"query": "ask: ", "document": "read: "}},
    "data": {"dataset": "/rows.csv", "format": "triplet", "holdout": {"rows": 10}},
    "loss": TRIPLET,
    "train": {"learning_rate": 2e-5, "batch_size": 32, "mini_batch_size": 16, "best": "kept/accuracy_cosine"},
    "eval": [EVALUATOR, {"type": "triplet", "from": "holdout"}],
}

STREAM = {"data.streaming": True}
TRIPLETS = {"data": {"dataset": "/rows.csv", "format": "triplet"}, "loss": TRIPLET}

# What is changed in the good recipe, and the key and code of the finding.
SEARCHED = {"type": "retrieval", "name": "many", "dataset": "./rows.jsonl", "by": "kind"}
CLASSES = {"type": "label_accuracy", "name": "classes", "dataset": "./rows.jsonl"}
PARAPHRASES = {"type": "paraphrase_mining", "dataset": "./rows.jsonl"}
REGULARIZER = {"type": "global_orthogonal_regularization"}
MISTAKES = [
    ({"loss": "cosent"}, "loss", "loss-format"),
    ({"loss": ["triplet", "cosent"]}, "loss.1", "loss-format"),
    ({"eval": [EVALUATOR | {"precisions": ["binary+rescore"]}]}, "eval.0.precisions", "precision"),
    ({"eval": [EVALUATOR | {"precisions": ["int8", "binary"]}], "model.similarity": "euclidean"}, "eval.0.precisions",
     "precision"),
    ({"eval": [PARAPHRASES | {"by": "kind"}]}, "eval.0.by", "slices"),
    ({"gate": [{"metric": "kept/accuracy_dot", "against": "base", "guard": True}]}, "gate.0.guard", "slices"),
    ({"eval": [EVALUATOR, CLASSES]}, "eval.1.type", "no-classifier"),
    ({"eval": [EVALUATOR, CLASSES], "data": {"dataset": "/rows.csv", "format": "labeled_pair"},
      "loss": ["softmax", "softmax"]}, "eval.1.type", "no-classifier"),
    ({"eval": [EVALUATOR, CLASSES], "data": {"dataset": "/rows.csv", "format": "labeled_pair"}, "loss": "softmax",
      "gate": [{"metric": "classes/accuracy", "against": "base"}]}, "gate.0.against", "no-classifier"),
    ({"gate": [{"metric": "many/recall@1", "against": "base", "guard": True}], "eval": [SEARCHED]}, "gate.0.guard",
     "slices"),
    ({"loss": ["triplet", REGULARIZER | {"columns": ["negatives"]}]}, "loss.1.columns", "unknown-role"),
    ({"loss": ["triplet", RANKING | {"columns": ["positive", "negative"]}]}, "loss.1.columns", "loss-format"),
    ({"loss": ["triplet", TRIPLET | {"columns": ["anchor", "positive"]}]}, "loss.1", "loss-format"),
    ({"loss": [RANKING | {"scale": 0.05}, REGULARIZER]}, "loss.0.scale", "scale"),
    ({"data.prompts": {"ancor": "query"}}, "data.prompts.ancor", "unknown-role"),
    ({"data.prompts": {"anchor": "qery"}}, "data.prompts.anchor", "unknown-prompt"),
    ({"eval": [EVALUATOR | {"prompts": {"anchor": "qery"}}]}, "eval.0.prompts.anchor", "unknown-prompt"),
    ({"model.prompts": {}, "model.default_prompt": "documents"}, "model.default_prompt", "unknown-prompt"),
    ({"model.max_seq_length": 65}, "model.max_seq_length", "too-long"),
    ({"loss": TRIPLET | {"matryoshka_dims": [64]}, "model.layers": []}, "loss.matryoshka_dims", "too-many-dimensions"),
    ({"push": {"repo": "me/good", "license": "apache2"}}, "push.license", "license"),
    ({"model.truncate_dim": 65, "model.pooling": ["mean", "cls"], "model.layers": ["normalize"]},
     "model.truncate_dim", "too-many-dimensions"),
    ({"loss": TRIPLET | {"margin": 2.0}}, "loss.margin", "margin"),
    ({"loss": TRIPLET | {"margin": 2.0, "distance": "cosine"}, "model.layers": []}, "loss.margin", "margin"),
    ({"train.learning_rate": 0.0}, "train.learning_rate", "learning-rate"),
    ({"train.learning_rate": 1e-3}, "train.learning_rate", "learning-rate"),
    ({"model.base": SCRATCH}, "train.learning_rate", "learning-rate"),
    ({"model.base": SCRATCH, "train.learning_rate": 2e5}, "train.learning_rate", "learning-rate"),
    ({"model.lora": {}}, "train.learning_rate", "learning-rate"),
    ({"train.freeze": ["*"]}, "train.freeze", "frozen"),
    ({"loss": RANKING | {"scale": 0.05}}, "loss.scale", "scale"),
    ({"loss": RANKING, "train.batch_size": 4, "train.mini_batch_size": None}, "train.batch_size", "few-negatives"),
    ({"loss": RANKING, "train.sampler": "shuffle"}, "train.sampler", "sampler"),
    ({"gate": [{"metric": "kept/accuracy_dot", "min": 50}]}, "gate.0.min", "gate-out-of-reach"),
    ({"gate": [{"metric": "kept/accuracy_dot", "against": "published"}]}, "gate.0.against", "gate-without-repo"),
    ({"train.mini_batch_size": 32}, "train.mini_batch_size", "mini-batch"),
    ({"eval": [EVALUATOR | {"split": "test[:50%]"}]}, "train.best", "best-on-test"),
    ({"gate": [{"metric": "kept/accuracy_dot", "min": 0.5}], "eval": [EVALUATOR | {"split": "test"}]},
     "gate.0.metric", "gate-on-test"),
    ({"train.best": "kept/accuracy"}, "train.best", "unknown-metric"),
    ({"gate": [{"metric": "kept/f1_cosine", "min": 0.5}]}, "gate.0.metric", "unknown-metric"),
    ({"eval": [EVALUATOR | {"when": []}]}, "eval.0.when", "never-measured"),
    ({"eval": [EVALUATOR]}, "data.holdout", "idle-holdout"),
    ({"model.prompts": {"search": "find: "}}, "model.prompts.search", "idle-prompt"),
    ({"model.prompts": {"query": "ask: "}}, "data.format", "idle-prompt"),
    ({"model.pooling": "cls"}, "model.pooling", "replaced-pooling"),
    ({"model.layers": []}, "model.layers", "replaced-layers"),
    ({"model.token_layers": [{"type": "lstm", "hidden_dim": 4}]}, "model.token_layers", "misplaced"),
    ({"data.format": "text", "loss": RANKING, "model.dropout": 0.0}, "loss", "one-view"),
    ({"data.format": "positive_pair", "loss": RANKING | {"negatives": "own"}}, "loss.negatives", "loss-format"),
    ({"model.base": {"type": "bag_of_words"}, "model.max_seq_length": None}, "model.layers", "nothing-to-train"),
    (STREAM, "train.max_steps", "streaming"),
    (STREAM | {"train.epochs": 2}, "train.epochs", "streaming"),
    (STREAM, "data.holdout", "streaming"),
    (STREAM | {"data.shuffle": True}, "data.shuffle", "streaming"),
    (STREAM | {"data.limit": 100}, "data.limit", "streaming"),
    (STREAM | {"data.split": "train[:50%]"}, "data.split", "streaming"),
    (STREAM | {"data.split": "train+validation"}, "data.split", "streaming"),
    (STREAM | {"loss": {"type": "gist", "teacher": "/guide"}}, "loss.teacher", "streaming"),
    (STREAM | {"model.base": SCRATCH}, "model.base", "streaming"),
    (STREAM | {"model.base": {"type": "bag_of_words"}, "model.max_seq_length": None}, "model.base", "streaming"),
    (STREAM | {"model.base": {"type": "static"}}, "model.base", "streaming"),
    (STREAM | {"model.base": {"type": "word_embeddings"}}, "model.base", "streaming"),
    (STREAM | {"model.token_layers": [{"type": "word_weights"}]}, "model.token_layers.0", "streaming"),
    ({"data": None, "loss": None, "objectives": [TRIPLETS | {"data": TRIPLETS["data"] | {"streaming": True}}, TRIPLETS],
      "eval": [EVALUATOR]}, "objectives.1.weight", "streaming"),
]  # fmt: skip


def changed(changes):
    """The good recipe with the values of some dotted keys replaced."""
    values = {key: dict(value) if isinstance(value, dict) else value for key, value in GOOD.items()}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if name:
            values[section][name] = value
        else:
            values[section] = value
    return Recipe.model_validate(values)


def findings_of(changes):
    recipe = changed(changes)
    base = inspect_model(recipe.model) if changes.get("model.base") else SENTENCE_MODEL
    return {check: list(check(recipe, base)) for check in [*ERRORS, *WARNINGS]}


def test_a_good_recipe_has_no_findings():
    assert [finding for findings in findings_of({}).values() for finding in findings] == []


@pytest.mark.parametrize(("changes", "key", "code"), MISTAKES)
def test_a_mistake_is_found_at_its_key(changes, key, code):
    assert (key, code) in [found[:2] for findings in findings_of(changes).values() for found in findings]


def test_a_mistake_is_shown_with_its_line_and_column(tmp_path):
    text = yaml.safe_dump(GOOD) + "gate:\n  - {min: 0.5, metric: kept/f1_cosine}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    loaded = load_recipe(tmp_path / "recipe.yaml")
    (problem,) = lint_recipe(ERRORS, loaded.recipe, SENTENCE_MODEL, loaded.origins)
    assert (problem.line, problem.column) == (len(text.splitlines()), 24)
    assert "{min: 0.5, metric: kept/f1_cosine}" in problem.snippet


def test_a_metric_that_is_like_none_is_answered_with_what_there_is_once():
    ((_, _, message),) = unknown_metrics(changed({"train.best": "nothing"}), SENTENCE_MODEL)
    assert message.count("kept/accuracy_cosine") == 1


def test_of_many_metrics_only_those_like_the_unknown_one_are_named():
    changes = {"loss": TRIPLET | {"matryoshka_dims": [32, 16, 8]}, "train.best": "kept@16/acuracy_cosine"}
    ((_, _, message),) = unknown_metrics(changed(changes), SENTENCE_MODEL)
    assert "did you mean `kept@16/accuracy_cosine`?" in message
    assert message.count("/accuracy_") == 1 + MAX_SHOWN
    assert message.endswith("`stfit reference metrics` prints all")


@pytest.mark.parametrize(
    ("written", "when", "hint"),
    [
        ("accuracy_dot", ["during"], "did you mean `kept/accuracy_dot`? known metrics: kept/accuracy_dot, "),
        ("accuracy", ["during"], "did you mean `kept/accuracy_cosine`?"),
        ("eval_kept_accuracy_dot", ["during"], "did you mean `kept/accuracy_dot`?"),
        ("kept/accuracy_dot", ["end"], "`eval.0` measures it only at `when: [end]`: write `when: [during, end]`"),
        ("acuracy_dot", ["start"], "`kept/accuracy_dot`? `eval.0` measures it only at `when: [start]`: write"),
        ("nothing", ["end"], "add `during` to the `when` of an evaluator"),
    ],
)
def test_a_metric_is_answered_with_the_one_that_was_meant_or_with_when_it_is_measured(written, when, hint):
    changes = {"train.best": written, "eval": [EVALUATOR | {"when": when}]}
    ((_, _, message),) = unknown_metrics(changed(changes), SENTENCE_MODEL)
    assert hint in message


def test_a_metric_of_a_gate_that_is_not_measured_after_training_is_answered_with_when():
    gate = [{"metric": "kept/accuracy_dot", "min": 0.5}]
    changes = {"train.best": None, "gate": gate, "eval": [EVALUATOR | {"when": ["during"]}]}
    ((key, _, message),) = unknown_metrics(changed(changes), SENTENCE_MODEL)
    assert (key, message.endswith("`when: [during]`: write `when: [during, end]`")) == ("gate.0.metric", True)


def test_negatives_of_all_processes_count(tmp_path):
    recipe = changed({"loss": RANKING, "train.batch_size": 4})
    ((_, _, alone),) = few_negatives(recipe, SENTENCE_MODEL)
    assert alone.startswith("4 rows give only 3 negatives")

    def ask():
        assert list(few_negatives(recipe, SENTENCE_MODEL)) == []

    assert run_group(2, ask, tmp_path / "output") == [0, 0], (tmp_path / "output").read_text()


def test_every_check_finds_something_here():
    finders = {check for changes, _, _ in MISTAKES for check, findings in findings_of(changes).items() if findings}
    with_a_head = replace(SENTENCE_MODEL, dropped="it has a head")
    finders |= {check for check in WARNINGS if list(check(changed({}), with_a_head))}
    elsewhere = {
        missing_trackers,
        prefixes_of_weights,
    }  # shown in test_trackers.py, and by a package in test_installed.py
    assert finders | elsewhere == {*ERRORS, *WARNINGS}


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": TRIPLET | {"margin": 5.0}, "model.layers": [{"type": "dense", "out_features": 8}]},
        {"loss": TRIPLET | {"margin": 1.9}},
        {"model.layers": ["normalize"], "model.pooling": "mean"},
        {"data.prompts": {"anchor": "query", "positive": "document"}},
        {"loss": RANKING, "train.sampler": "no_duplicates"},
        STREAM | {"data.holdout": None, "eval": [EVALUATOR], "train.max_steps": 9},
        STREAM
        | {"data.holdout": None, "eval": [EVALUATOR], "train.max_steps": 9}
        | {"model.token_layers": [{"type": "word_weights", "weights": "/weights.txt"}]},
    ],
)
def test_what_only_looks_like_a_mistake_is_left_alone(changes):
    codes = {code for findings in findings_of(changes).values() for _, code, _ in findings}
    assert codes <= {"replaced-layers"}
