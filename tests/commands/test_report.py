"""The report of a run: what it needs is noted during the run, and costs the training nothing."""

import json
import re
import shutil
from pathlib import Path

import pytest
from report.pages import assert_valid_page

from stfit.commands.report import report, runs_in
from stfit.commands.train import train
from stfit.errors import RecipeError
from stfit.evaluation.bootstrap import compare
from stfit.evaluation.measure import measure
from stfit.events import StepInfo
from stfit.io.json_files import load_json_object
from stfit.recipe.load import load_recipe
from stfit.runtime.run_folder import RunFolder, lock_folder
from stfit.workflows.report.summarize_run import write_report

TRIPLETS = {"type": "triplet", "name": "kept", "dataset": "./rows.jsonl", "split": "train"}
CLASSES = {
    "type": "classification",
    "name": "classes",
    "dataset": "./rows.jsonl",
    "train_split": "train[:50%]",
    "split": "train[50%:]",
}


def weights(run):
    return (run / "model" / "model.safetensors").read_bytes()


def log_of(run):
    return [
        {name: value for name, value in entry.items() if name not in ("seconds", "spent", "peak_rss_mib")}
        for entry in RunFolder(run).read_log()
    ]


def test_a_run_with_a_report_equals_a_run_without(tmp_path, write, run, similarity, monkeypatch, pictures):
    recipe = write(eval=[similarity, TRIPLETS])
    run(recipe, "with")
    monkeypatch.setattr("stfit.workflows.train.finish.write_report", lambda folder: None)
    monkeypatch.setattr("stfit.workflows.report.report_data.choose_samples", lambda *arguments: [])
    monkeypatch.setattr("stfit.workflows.report.report_data.ReportData.record_metrics", lambda *arguments: None)
    run(recipe, "without")
    assert (tmp_path / "with" / "tiny" / "report.html").is_file()
    assert not (tmp_path / "without" / "tiny" / "report.html").exists()
    assert weights(tmp_path / "with" / "tiny") == weights(tmp_path / "without" / "tiny")
    assert log_of(tmp_path / "with" / "tiny") == log_of(tmp_path / "without" / "tiny")


@pytest.mark.slow
def test_notes_of_a_resumed_run_are_those_of_an_uninterrupted_one(tmp_path, write, run, similarity):
    recipe = write(eval=[similarity])
    run(recipe, "whole")
    events = train(load_recipe(recipe), tmp_path / "stopped")
    for event in events:
        if isinstance(event, StepInfo) and event.step == 5:
            break
    events.close()
    assert runs_in(tmp_path / "stopped")[0]["state"] == "stopped at step 5, saved at 4"
    (tmp_path / "stopped" / "tiny" / "metrics.jsonl").write_text("")  # less often written than checkpoints are
    assert runs_in(tmp_path / "stopped")[0]["state"] == "stopped at step 4"
    run(recipe, "stopped")
    one, other = (load_json_object(RunFolder(tmp_path / name / "tiny").record) for name in ("whole", "stopped"))
    assert one == other
    assert set(one["seen"]) == set(one["drawn"]) == {"start", "end"}


@pytest.mark.slow
def test_report_tells_what_went_wrong_on_the_way(tmp_path, write, run, pictures):
    path = write(data={"format": "triplet"}, loss={"type": "triplet", "margin": 1e-6}, model={"dropout": 0.0})
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    same_tokens = [row | {"positive": row["anchor"].replace("e", "é")} for row in rows]  # none is nearer
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same_tokens))
    run(path)
    folder = RunFolder(tmp_path / "runs" / "tiny")
    assert [each["code"] for each in load_json_object(folder.record)["warnings"]].count("zero-gradient") == 1
    assert "the gradient was 0" in folder.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "where", ["stfit.workflows.train.finish.write_report", "stfit.evaluation.report_samples.Sample.snapshot"]
)
def test_a_report_that_fails_costs_no_model(tmp_path, write, run, similarity, monkeypatch, caplog, where):
    def fail(*arguments):
        raise RuntimeError("no ink")

    monkeypatch.setattr(where, fail)
    finished = run(write(eval=[similarity]))[-1]
    assert finished.result["metrics"]
    assert (tmp_path / "runs" / "tiny" / "model" / "model.safetensors").is_file()
    assert "no ink" in caplog.text


def test_interval_of_the_report_is_that_of_comparing_both_models(tmp_path, write, run, similarity):
    """Values drawn at the start and at the end of a run, against a bootstrap that has both models at hand."""
    from stfit.encoder.build import load_encoder
    from stfit.workflows.check.validate import prepare_evaluation
    from stfit.workflows.evaluate.baselines import build_untrained
    from stfit.workflows.report.summarize_run import summarize_run

    path = write(eval=[similarity])
    run(path)
    folder = RunFolder(tmp_path / "runs" / "tiny")
    recipe = load_recipe(path).recipe
    evaluators = prepare_evaluation(recipe)
    before, after = build_untrained(recipe, "cpu"), load_encoder(folder.model)
    metric = "scores/spearman_cosine"
    expected = compare(*(measure(model, evaluators, "end")[metric] for model in (after, before)))
    gain = summarize_run(folder).gains[metric]
    assert (gain["low"], gain["high"]) == pytest.approx((expected.low, expected.high), abs=2e-5)
    assert gain["verdict"] == expected.verdict


def test_every_second_of_a_run_is_accounted_for(tmp_path, write, run, similarity):
    finished = run(write(eval=[similarity]))[-1]
    spent = finished.result["spent"]
    assert set(spent) == {"preparing", "data", "forward", "backward", "optimizer", "evaluation", "saving"}
    steps = sum(spent[part] for part in ("data", "forward", "backward", "optimizer"))
    assert steps == pytest.approx(finished.result["seconds"], abs=0.01)


NASTY = "<script>alert(1)</script> & \"quotes\" 'too' </td> \u202e https://elsewhere.example/x.js ]]>"


@pytest.fixture
def folder(tmp_path, write, run, similarity):
    """A finished run over hostile texts."""
    path = write(eval=[similarity, TRIPLETS, CLASSES], data={"format": "labeled_text"}, loss="batch_all_triplet")
    rows = [json.loads(line) for line in (path.parent / "rows.jsonl").read_text().splitlines()]
    rows = [
        {key: f"{value} {NASTY}" if isinstance(value, str) else value for key, value in row.items()} for row in rows
    ]
    (path.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(path)
    return tmp_path / "runs" / "tiny"


def test_report_is_one_sound_page_and_texts_stay_texts(folder):
    write_report(RunFolder(folder))
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = assert_valid_page(text)
    assert "<script" not in text
    assert any("<script>alert(1)</script>" in shown for shown in page.texts)
    assert "\u202e" not in text
    titles = [shown for shown in page.texts if shown in {title for _, title in SECTIONS}]
    assert len(set(titles)) == len(SECTIONS)
    assert len(page.all("svg")) == 2 + 3 + 1  # curves, three samples, lengths
    assert len(text) < 1_000_000


SECTIONS = [
    (1, title)
    for title in (
        "Before and after",
        "Model, data and evaluators",
        "Training",
        "Similarities",
        "Examples",
        "Nearest neighbors",
        "Lengths",
        "Time and memory",
        "Recipe and lock",
    )
]


@pytest.mark.slow
def test_the_same_run_gives_the_same_report(folder):
    texts = []
    for _ in range(2):
        write_report(RunFolder(folder))
        texts.append((folder / "report.html").read_text(encoding="utf-8"))
    assert texts[0] == texts[1]


def test_runs_are_compared_on_one_page(tmp_path, write, run, similarity):
    for seed in (1, 2):
        run(write(eval=[similarity], seed=seed, name=f"seed{seed}", data={"limit": 8} if seed == 2 else {}))
    runs = [tmp_path / "runs" / name for name in ("seed1", "seed2")]
    found = report(runs)
    text = (tmp_path / "runs" / "comparison.html").read_text(encoding="utf-8")
    assert found["output"] == str(tmp_path / "runs" / "comparison.html")
    page = assert_valid_page(text)
    assert "seed" in page.texts
    assert " to " in "".join(page.texts)
    assert "None" not in page.texts  # a value is written as recipes write it
    assert any(verdict in text for verdict in ("better", "worse", "maybe chance"))
    both = json.loads((runs[0] / "result.json").read_text()), json.loads((runs[1] / "result.json").read_text())
    for result in both:
        assert f"{result['result']['metrics']['scores/spearman_cosine']:.4f}" in text
    report(runs, against=runs[1])
    turned = assert_valid_page((tmp_path / "runs" / "comparison.html").read_text(encoding="utf-8"))
    gains = [
        float(line.split()[0])
        for line in [*page.texts, *turned.texts]
        if re.fullmatch(r"\S+ (better|worse|maybe chance)", line)
    ]
    assert gains[0] == -gains[1] != 0
    with pytest.raises(RecipeError, match="is none of the runs"):
        report(runs, against=tmp_path)


def test_runs_measured_on_other_rows_have_no_gain(tmp_path, write, run, similarity):
    run(write(eval=[similarity], name="one"))
    run(write(eval=[similarity | {"limit": 6}], name="other"))
    report([tmp_path / "runs" / name for name in ("one", "other")])
    page = (tmp_path / "runs" / "comparison.html").read_text()
    assert "maybe chance" not in page
    assert "other rows" in page


def test_what_is_no_run_folder_is_refused(tmp_path):
    for content in ("{}", '{"recipe": 5}', "5"):
        (tmp_path / "stfit.lock").write_text(content)
        with pytest.raises(RecipeError, match=r"is not a run folder: its stfit\.lock"):
            report([tmp_path])


def test_a_damaged_run_is_listed_beside_the_good_ones(tmp_path, write, run, caplog):
    run(write(name="good"))
    for name, file in (("first", "resolved.yaml"), ("second", "stfit.lock"), ("third", "metrics.jsonl")):
        shutil.copytree(tmp_path / "runs" / "good", tmp_path / "runs" / name)
        (tmp_path / "runs" / name / file).write_text('{"recipe": 5, "event": "step"}\n')
    states = {Path(entry["run"]).name: entry["state"] for entry in runs_in(tmp_path / "runs")}
    assert states == {"first": "damaged", "second": "damaged", "third": "finished", "good": "finished"}
    assert str(tmp_path / "runs" / "first" / "resolved.yaml") in caplog.text
    report([tmp_path / "runs" / "third"])


def test_runs_are_listed_with_state_and_verdict(tmp_path, write, run, similarity):
    run(write(eval=[similarity], name="first"))
    run(write(name="second"))
    with lock_folder(tmp_path / "runs" / "second"):
        (tmp_path / "runs" / "second" / "result.json").unlink()
        first, second = sorted(runs_in(tmp_path / "runs"), key=lambda found: found["run"])
    assert (first["state"], first["metric"]) == ("finished", "scores/spearman_cosine")
    assert first["verdict"] in ("better", "worse", "no evidence")
    assert first["recipe"] == "scratch, multiple_negatives_ranking, rows.jsonl"
    assert (second["state"], second["metric"], second["verdict"]) == ("in progress", None, None)
    assert runs_in(tmp_path / "nowhere") == []


def test_the_metric_of_the_gate_is_shown_first(tmp_path, write, run, similarity):
    gated = "scores/pearson_cosine"
    run(write(eval=[similarity], gate=[{"metric": gated, "min": -1}]))
    (entry,) = runs_in(tmp_path / "runs")
    assert (entry["metric"], entry["after"] is not None) == (gated, True)
