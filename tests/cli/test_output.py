"""What other programs read: --json, --print-config, the summary of a CI job, colours."""

import json
import re

import pytest
import yaml
from rich.cells import cell_len

from stfit.cli.console import print_table
from stfit.cli.progress import is_interactive
from stfit.cli.tables import gain_row


def test_every_verb_with_json_prints_one_object_and_nothing_else(run):
    keys = {
        "init ./rows.jsonl -o new.yaml": {"recipe", "format", "loss", "reasons"},
        "check recipe.yaml": {"errors", "warnings"},
        "schema": {"$schema", "definitions"},
        "train recipe.yaml --print-config": {"values"},
        "train recipe.yaml": {"run", "model", "steps", "seconds", "examples_per_second", "baseline", "metrics"},
        "eval recipe.yaml": {"metrics"},
        "encode runs/recipe texts.txt -o out.npy": {"output", "rows", "embedding_dim", "rows_per_second"},
        "similar runs/recipe texts.txt --query rain": {"queries"},
    }
    for line, expected in keys.items():
        code, out, _ = run(f"{line} --json")
        assert code == 0, line
        assert expected <= set(json.loads(out)), line


def test_a_failure_with_json_is_one_object_too(run):
    for line, code in {
        "check nowhere.yaml": 2,
        "init ./rows.jsonl -o recipe.yaml": 2,
        "schema -o nowhere/schema.json": 9,
        "init ./nowhere.csv -o new.yaml": 3,
        "train recipe.yaml --print-config trian.epochs=1": 2,
        "encode": 2,
    }.items():
        ended, out, err = run(f"{line} --json")
        error = json.loads(out)["error"]
        assert ended == error["exit_code"] == code, line
        assert error["message"] in err


def test_print_config_shows_every_value_and_where_it_was_said(run, folder):
    (folder / "other.yaml").write_text("extends: recipe.yaml\nseed: 7\ntrain:\n  epochs: 2\n  max_steps: null\n")
    _, out, _ = run("train other.yaml --print-config --json eval.0.split=test")
    values = json.loads(out)["values"]
    assert values["seed"] == {"value": 7, "origin": "other.yaml:2"}
    assert values["train.epochs"] == {"value": 2, "origin": "other.yaml:4"}
    assert values["train.batch_size"] == {"value": 5, "origin": "extends recipe.yaml:4"}
    assert values["train.learning_rate"] == {"value": 2e-5, "origin": "default"}
    assert values["eval.0.split"] == {"value": "test", "origin": "command line"}
    assert values["name"] == {"value": "other", "origin": "the file's name"}
    assert not (folder / "runs").exists()


def test_what_print_config_shows_can_be_given_as_overrides(run):
    _, first, _ = run("train recipe.yaml --print-config")
    given = [line.split("  ")[0] for line in first.splitlines()]
    assert all(yaml.safe_load(line.partition("=")[2]) is not ... for line in given)
    _, again, _ = run("train recipe.yaml --print-config " + " ".join(line for line in given if " " not in line))
    assert [line.split("  ")[0] for line in again.splitlines()] == given


def test_a_pages_file_is_what_stdout_would_have_been(run, folder):
    for verb in ("schema", "reference"):
        _, printed, _ = run(verb)
        _, out, err = run(f"{verb} -o page")
        assert (folder / "page").read_text() == printed
        assert (out, err) == ("", "page: written\n")


def test_train_and_eval_add_a_table_to_the_summary_of_a_ci_job(run, folder, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    (folder / "summary.md").write_text("# The job\n")
    assert run("train recipe.yaml --json")[0] == 0
    assert run("eval recipe.yaml")[0] == 0
    before, trained, measured = (folder / "summary.md").read_text().split("### ")
    assert before == "# The job\n"
    value = r"-?\d\.\d{4}"
    name = r"kept\\\|here/spearman_cosine"
    assert re.search(rf"\| {name} \| {value} \| {value} \| [+-]\d\.\d{{4}} [↑↓=] \|", trained)
    assert re.search(rf"\| {name} \| {value} \|", measured)


def test_train_prints_the_verdict_of_its_report(run, folder, pictures):
    line = "train recipe.yaml train.learning_rate=1e-12"  # a model that stays as it was
    assert re.search(r"kept\|here/spearman_cosine .* = +maybe chance", run(line)[1])
    assert "<td>maybe chance</td>" in (folder / "runs" / "recipe" / "report.html").read_text(encoding="utf-8")
    assert json.loads(run(f"{line} --json")[1])["gains"]["kept|here/spearman_cosine"]["verdict"] == "no evidence"


def test_train_prints_each_evaluation_once(run):
    _, _, err = run("train recipe.yaml train.best=kept|here/spearman_cosine train.eval_every_steps=1")
    assert re.findall(r"^step (\d)", err, re.MULTILINE) == ["0", "1", "2"]


def test_a_summary_that_cant_be_written_is_no_failure(run, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/nowhere/summary.md")
    assert run("train recipe.yaml")[0] == 0


ESCAPE = "\x1b["


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colour_on_a_pipe_only_when_it_is_forced(environment, coloured, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    print_table(["metric", "before", "after", "gain", "verdict"], [gain_row("a/b", 0.5, 0.75, "better")])
    out = capsys.readouterr().out
    assert (ESCAPE in out) == coloured
    assert "+0.2500" in out


def test_the_progress_bar_needs_a_terminal_outside_of_ci(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert is_interactive()
    monkeypatch.setenv("CI", "true")
    assert not is_interactive()
    monkeypatch.delenv("CI")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert not is_interactive()


@pytest.mark.slow
def test_a_gate_that_is_not_passed_ends_with_its_own_code(run, folder):
    run("train recipe.yaml")
    with (folder / "recipe.yaml").open("a") as file:
        file.write('gate: [{metric: "kept|here/spearman_cosine", min: 2}]\n')
    code, out, err = run("eval recipe.yaml --compare runs/recipe")
    assert code == 7
    assert "1 of 1 gates failed" in err
    assert re.search(r"kept\|here/spearman_cosine .* =  .*maybe chance", out)
    assert re.search(r"kept\|here/spearman_cosine +\S+ +2.0000 +NOT PASSED", out)
    code, out, _ = run("eval recipe.yaml --compare runs/recipe --json")
    assert code == 7
    found = json.loads(out)
    assert {"metrics", "gate", "compare", "error"} <= set(found)
    assert {"metric", "value", "limit", "passed"} <= set(found["gate"][0])


def test_no_text_of_a_file_commands_the_terminal(run, folder):
    wild = "\x1b]0;title\x07rain \x9b2J\r\x08 \u202eten"
    rows = [{"sentence1": wild + str(i), "sentence2": f"{wild} {i}", "label": i % 5 / 4, wild: 1} for i in range(10)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    (folder / "texts.txt").write_text(f"{wild.replace(chr(13), '')}\nabout tea\n")
    printed = ""
    for line in ("check recipe.yaml", "init ./rows.jsonl -o new.yaml", "train recipe.yaml", "eval recipe.yaml", "runs"):
        printed += "".join(run(line)[1:])
    printed += "".join(run("similar runs/recipe texts.txt --query \x1b[5mrain")[1:])
    printed += "".join(run("similar runs/recipe texts.txt")[1:])
    printed += "".join(run("train recipe.yaml data.columns.sentence1=text")[1:])
    assert "rain" in printed
    assert not re.findall(r"[^\S\n\t ]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", printed)


def test_a_text_of_an_example_takes_two_lines_of_the_terminal_and_is_whole_with_json(run, folder, monkeypatch):
    """Also if its characters take two cells each, or some are spelled out."""
    texts = {"sentence1": "long " * 90, "sentence2": "\x1b" + "長" * 300 + "\nend"}
    rows = [json.loads(line) | texts for line in (folder / "rows.jsonl").read_text().splitlines()]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("COLUMNS", "40")
    shown = [line for line in run("check recipe.yaml")[1].splitlines() if line.startswith("  sentence")]
    assert len(shown) == 6
    assert all(line.endswith("…") and 70 < cell_len(line) <= 80 for line in shown)
    assert texts.items() <= json.loads(run("check recipe.yaml --json")[1])["samples"][0].items()


def test_eval_of_a_misspelled_path_names_the_one_that_is_there(run, folder):
    (folder / "found" / "search").mkdir(parents=True)
    code, _, err = run("eval found/serch")
    assert code == 2
    assert "found/serch does not exist: did you mean `search`?" in err
