"""Texts that evaluators share with training are reported by `check`, and left out of training if the recipe says so."""

import json

import pytest

from stfit.commands.check import check
from stfit.commands.mine import load_pairs
from stfit.recipe.load import load_recipe

SIMILARITY = {"type": "similarity", "name": "dev", "dataset": "./dev.jsonl", "split": "train"}
CLASSIFICATION = {"type": "classification", "name": "kinds", "from": "holdout"}


@pytest.fixture
def recipe(write, tmp_path):
    """Two of twelve training rows have a text that the evaluator has, in other words' case and punctuation."""
    rows = [
        {"sentence1": "THE CAT, is number 0!", "sentence2": "a dog", "label": 1.0},
        {"sentence1": "an owl", "sentence2": "1 of the dogs that we saw today?", "label": 0.0},
        {"sentence1": "a bee", "sentence2": "a wasp", "label": 0.5},
    ]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write(eval=[SIMILARITY], train={"max_steps": 2, "batch_size": 4})


def codes(result):
    return [problem.code for problem in result["warnings"]]


def test_check_counts_shared_texts_by_column_and_drop_overlap_leaves_none(recipe):
    result = check(recipe, [])
    (problem,) = (problem for problem in result["warnings"] if problem.code == "shared-texts")
    assert "1 of 3 in sentence1 (row 1), 1 of 3 in sentence2 (row 2)" in problem.message
    kept = check(recipe, ["data.drop_overlap=true"])
    assert (result["rows"], kept["rows"], kept["dropped"]) == (12, 10, {"shared with an evaluator": 2})
    assert codes(kept) == [code for code in codes(result) if code != "shared-texts"]
    assert len(load_pairs(load_recipe(recipe, ["data.drop_overlap=true"]).recipe)[0]) == 10


def test_a_row_that_is_left_out_is_not_trained_on_and_other_evaluators_start_anew(recipe, run, tmp_path):
    text = json.loads(recipe.read_text())
    text["data"]["drop_overlap"] = True
    recipe.write_text(json.dumps(text))
    assert run(recipe)[0].rows == 10
    (tmp_path / "other.jsonl").write_text((tmp_path / "dev.jsonl").read_text().replace("THE CAT", "no cat"))
    text["eval"][0]["dataset"] = "./other.jsonl"
    recipe.write_text(json.dumps(text))
    assert run(recipe)[0].rows == 11
    assert (tmp_path / "runs" / "tiny.1").is_dir()


RETRIEVAL = {"type": "retrieval", "from": "holdout"}


@pytest.fixture
def questions(write, tmp_path):
    """A recipe for 24 questions with two answers each, which are those of another question, too."""
    rows = [
        {"question": f"question {i} of someone", "answer": f"the answer {(i + j) % 24} to it"}
        for i in range(24)
        for j in (0, 7)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_recipe(holdout, evaluator=RETRIEVAL, **columns):
        data = {"dataset": "./questions.jsonl", "format": "positive_pair", "holdout": holdout}
        return write(data=data | {"columns": {"anchor": "question", "positive": "answer"} | columns}, eval=[evaluator])

    return write_recipe


def test_documents_may_be_shared_and_queries_of_a_holdout_are_separated_by_the_column_that_is_named(questions):
    (problem,) = (each for each in check(questions({"rows": 12}), [])["warnings"] if each.code.startswith("shared"))
    assert "in query" in problem.message
    assert "in corpus" not in problem.message
    assert problem.message.endswith("write `holdout: {by: question}`, so that all rows of one anchor are on one side")
    separated = questions({"rows": 12, "by": "question"})
    assert not [code for code in codes(check(separated, [])) if code.startswith("shared")]
    assert check(separated, ["data.drop_overlap=true"])["rows"] == 36


def test_a_column_that_does_not_separate_all_texts_of_an_evaluator_is_not_named(questions):
    """Neither questions nor answers: each of one stands beside several of the other."""
    translation = {"type": "translation", "from": "holdout"}
    (problem,) = (
        each for each in check(questions({"rows": 12}, translation), [])["warnings"] if each.code.startswith("shared")
    )
    assert problem.message.endswith("or leave these out of training with `data.drop_overlap: true`")


def test_nothing_is_left_is_an_error(recipe, tmp_path):
    text = json.loads(recipe.read_text())
    text["eval"][0] |= {"dataset": "./rows.jsonl", "columns": {"sentence1": "anchor", "label": "score"}}
    recipe.write_text(json.dumps(text))
    result = check(recipe, ["data.drop_overlap=true"])
    assert result["error"]["exit_code"] == 3
    assert "`drop_overlap` leaves none of 12 examples" in result["error"]["message"]


def test_classes_are_predicted_from_the_rows_that_are_left(write, tmp_path):
    """An evaluator on a holdout learns from the training rows, and so from none that it measures."""
    rows = [{"text": f"text {i // 2} of many", "label": i % 2} for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"dataset": "./pairs.jsonl", "format": "labeled_text", "holdout": {"rows": 8}, "drop_overlap": True}
    recipe = load_recipe(write(data=data, loss="batch_hard_triplet", eval=[CLASSIFICATION])).recipe

    from stfit.workflows.check.validate import load_and_validate, prepare_evaluation

    prepared = load_and_validate(recipe)
    for classes in (prepared.evaluation[0], prepare_evaluation(recipe)[0][1]):
        assert classes.known.texts == prepared.training[0].texts
        assert not {*classes.known.texts["text"]} & {*classes.measured.texts["text"]}


def test_check_full_reads_a_stream_to_its_end_and_finds_near_duplicates(write, tmp_path, tiny_base):
    rows = [{"anchor": f"question {i} about a thing", "positive": f"answer {i} to it"} for i in range(50)]
    rows[40]["anchor"] = "the long question that nobody has asked before in this place"
    rows[45]["anchor"] = "an owl"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dev = {"sentence1": "an owl!", "sentence2": f"{rows[40]['anchor']} today", "label": 1.0}
    (tmp_path / "dev.jsonl").write_text(json.dumps(dev) + "\n" + json.dumps(dev | {"label": 0.0}) + "\n")
    data = {"dataset": "./rows.jsonl", "format": "positive_pair", "streaming": True, "shuffle_buffer": 8}
    recipe = write(data=data, model={"base": str(tiny_base("bert"))}, eval=[SIMILARITY])
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = check(recipe, [], full=True)
    found = {problem.code: problem.message for problem in result["warnings"]}
    assert "2 of 2 in sentence1 (rows 1, 2)" in found["shared-texts"]
    assert "2 of 2 in sentence2 (rows 1, 2)" in found["near-duplicates"]
    kept = check(recipe, ["data.drop_overlap=true"], full=True)
    assert "shared-texts" not in codes(kept)
    assert "near-duplicates" in codes(kept)


def test_a_run_of_before_the_key_goes_on(recipe, run, tmp_path):
    run(recipe)
    lock = tmp_path / "runs" / "tiny" / "stfit.lock"
    written = json.loads(lock.read_text())
    del written["recipe"]["data"]["drop_overlap"]
    lock.write_text(json.dumps(written))
    assert run(recipe)[-1].again
