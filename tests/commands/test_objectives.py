"""Several objectives: every batch is of one of them, and a run of one is the run of a list of one."""

import json

import pytest

from stfit.commands.check import check
from stfit.errors import RecipeError
from stfit.events import Started, StepInfo
from stfit.recipe.load import load_recipe

RANKING = {"data": {"dataset": "./rows.jsonl", "format": "positive_pair"}, "loss": "multiple_negatives_ranking"}
CLASSES = {"data": {"dataset": "./rows.jsonl", "format": "labeled_pair"}, "loss": "softmax"}
SCORES = {
    "data": {"dataset": "./rows.jsonl", "format": "labeled_pair", "columns": {"label": "score"}, "limit": 5},
    "loss": "cosent",
}
MINED = {"data": {"dataset": "./rows.jsonl", "format": "labeled_text"}, "loss": "batch_hard_triplet"}


@pytest.fixture
def several(write):
    """Writes a recipe of several objectives."""
    return lambda *objectives, **sections: write(data=None, loss=None, objectives=objectives, **sections)


def steps_of(events):
    return [event for event in events if isinstance(event, StepInfo)]


def weights_of(tmp_path, runs):
    return (tmp_path / runs / "tiny" / "model" / "model.safetensors").read_bytes()


def test_a_list_of_one_is_the_training_of_data_and_loss(tmp_path, write, several, run):
    one = run(write(), "plain")
    other = run(several(RANKING), "listed")
    assert [step.loss for step in steps_of(one)] == [step.loss for step in steps_of(other)]
    assert weights_of(tmp_path, "plain") == weights_of(tmp_path, "listed")


def test_every_loss_is_given_batches_of_its_own_format_in_turn(several, run):
    objectives = [each | {"weight": 1.0} for each in (RANKING, CLASSES, SCORES, MINED)]
    steps = steps_of(run(several(*objectives, train={"max_steps": 8})))
    assert sorted(step.objectives[0] for step in steps[:4]) == [0, 1, 2, 3]
    assert [step.objectives for step in steps[4:]] == [step.objectives for step in steps[:4]]
    with_losses = several(RANKING, CLASSES | {"data": RANKING["data"]})
    with pytest.raises(RecipeError, match="loss: `softmax` does not support format `positive_pair`"):
        run(with_losses)


def test_an_objective_may_have_a_teacher(several, run, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    learnt = RANKING | {"loss": {"type": "teacher_cosine", "teacher": str(tiny_base("bert"))}}
    path = several(RANKING, learnt)
    assert check(path, [])["errors"] == []
    assert {step.objectives[0] for step in steps_of(run(path))} == {0, 1}


def test_weights_are_the_shares_that_check_foretells(several, run):
    path = several(RANKING | {"weight": 3.0}, CLASSES | {"weight": 1.0}, train={"max_steps": 40})
    foretold = [objective["share"] for objective in check(path, [])["objectives"]]
    assert foretold == [0.75, 0.25]
    taken = [step.objectives[0] for step in steps_of(run(path))]
    assert [taken.count(objective) / 40 for objective in (0, 1)] == foretold


def test_check_foretells_steps_tokens_and_rows_of_an_epoch(several, run, tiny_base):
    model = {"base": str(tiny_base("bert")), "max_seq_length": 16}
    path = several(RANKING, SCORES, CLASSES, model=model, train={"max_steps": None, "epochs": 2})
    foretold = check(path, [])
    events = run(path)
    started = next(event for event in events if isinstance(event, Started))
    assert foretold["rows"] == started.rows == 12 + 5 + 12
    assert foretold["steps"] == started.total_steps == len(steps_of(events))
    assert foretold["tokens"] == pytest.approx(sum(step.tokens for step in steps_of(events)), rel=0.02)


def test_each_objective_has_its_own_sampler_and_prompts(several, run, tmp_path):
    asked = RANKING | {"data": RANKING["data"] | {"prompts": {"anchor": "document"}}}
    path = several(asked, MINED, CLASSES | {"sampler": "group_by_label"}, model={"prompts": {"document": "read: "}})
    samples = check(path, [])["samples"]
    assert [sample.get("anchor", "")[:6] for sample in samples[:3]] == ["read: "] * 3
    assert not any(sample["text"].startswith("read: ") for sample in samples[3:6])
    run(path)
    resolved = load_recipe(tmp_path / "runs" / "tiny" / "resolved.yaml").recipe
    assert [each.sampler for each in resolved.objectives] == ["no_duplicates", "group_by_label", "group_by_label"]


def test_lock_holds_the_rows_of_every_objective_and_a_changed_one_starts_anew(several, run, tmp_path, caplog):
    run(several(RANKING, SCORES))
    lock = json.loads((tmp_path / "runs" / "tiny" / "stfit.lock").read_text())
    assert [data["rows"] for data in lock["data"]] == [12, 5]
    assert len({data["fingerprint"] for data in lock["data"]}) == 2
    run(several(RANKING, SCORES | {"weight": None, "loss": {"type": "cosent", "scale": 5.0}}))
    assert "objectives.1.loss.scale: 20.0 -> 5.0" in caplog.text


def test_holdout_of_an_objective_is_measured(several, run):
    kept = SCORES | {"data": {**SCORES["data"], "limit": None, "holdout": {"rows": 4}}}
    events = run(several(RANKING, kept, eval=[{"type": "similarity", "from": "holdout"}]))
    assert "holdout/spearman_cosine" in events[-1].result["metrics"]


WRONG = [
    ({"objectives": [RANKING], "data": RANKING["data"]}, "replaces `data` and `loss`"),
    ({"objectives": [], "data": None, "loss": None}, "at least 1 items"),
    ({"objectives": [RANKING | {"weight": 1.0}, CLASSES]}, "set `weight` for all objectives or for none"),
    ({"objectives": [RANKING | {"weight": 0.0}]}, "`objectives.0.weight`: expected more than 0"),
    ({"data": RANKING["data"]}, "`loss` is missing: The loss to minimize, or a list"),
    ({"data": RANKING["data"], "loss": None}, "`data` and `loss`, or several `objectives`"),
    ({}, "`data` is missing: The training data."),
    ({"objectives": [{"loss": "cosent"}]}, "`objectives.0.data` is missing"),
    ({"objectives": [RANKING, CLASSES | {"loss": "soft_max"}]}, "unknown choice `soft_max`; did you"),
]


@pytest.mark.parametrize(("sections", "message"), WRONG)
def test_recipe_that_says_it_twice_or_not_at_all_is_refused(tmp_path, sections, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(json.dumps({"model": {"base": {"type": "scratch"}}} | sections))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in str(caught.value)


def test_mistakes_and_doubts_name_the_objective_and_its_line(several):
    scaled = RANKING | {"loss": {"type": "multiple_negatives_ranking", "scale": 0.05}}
    path = several(CLASSES, scaled | {"data": RANKING["data"] | {"prompts": {"anchor": "nothing"}}})
    result = check(path, [])
    (scale,) = [problem for problem in result["warnings"] if problem.code == "scale"]
    assert scale.message.startswith("objectives.1.loss.scale: ")
    assert scale.line == 1
    (prompt,) = [problem for problem in result["errors"] if problem.code == "unknown-prompt"]
    assert prompt.message.startswith("objectives.1.data.prompts.anchor: ")
    assert check(several(CLASSES, MINED | {"loss": "cosent"}), [])["error"]["exit_code"] == 2


def test_rows_of_any_objective_that_are_measured_on_are_said(several, similarity):
    result = check(several(RANKING, SCORES, eval=[similarity]), [])
    shared = [problem for problem in result["warnings"] if problem.code == "shared-rows"]
    assert len(shared) == 1
    assert "5 of 12 in sentence1 (rows 1, 2, 3, 4, 5)" in shared[0].message


def test_console_names_every_objective(several, monkeypatch, capsys):
    from stfit.cli.main import main

    monkeypatch.setattr("sys.argv", ["stfit", "check", str(several(RANKING, SCORES))])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr().out
    assert "75% of the batches: multiple_negatives_ranking on 12 examples" in printed
    assert "25% of the batches: cosent on 5 examples" in printed
