"""`stfit check`: what it foretells is what train does, and what it says train says too."""

import json
import logging
import shutil

import huggingface_hub.constants as hub
import pytest

from stfit.cli.main import main
from stfit.commands.check import FIRST_ROWS, check, count_tokens, limit_hub_splits
from stfit.data.mapping.load_examples import load_examples
from stfit.encoder.build import build_encoder
from stfit.encoder.folder.inspect import inspect_model
from stfit.events import Started
from stfit.recipe.load import load_recipe

PROMPTS = {"prompts": {"query": "ask: ", "document": "read: "}}


def codes(problems):
    return [problem.code for problem in problems]


@pytest.fixture
def stfit(capsys, monkeypatch):
    """Runs a command line; exit code, stdout, stderr."""

    def run_line(*arguments):
        monkeypatch.setattr("sys.argv", ["stfit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run_line


def test_samples_are_what_the_model_will_see(write):
    result = check(write(model=PROMPTS), [])
    assert len(result["samples"]) == 3
    assert result["samples"][0] == {
        "anchor": "ask: the cat is number 0",
        "positive": "read: 0 of the cats that we saw today",
    }


def test_samples_name_the_classes_that_were_numbered(write, tmp_path):
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "label": ("yes", "no")[i % 2]} for i in range(4)]
    path = write(data={"dataset": "./named.jsonl", "format": "labeled_pair"}, loss="softmax")
    (path.parent / "named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = [(sample["label"], sample["class"]) for sample in check(path, [])["samples"]]
    assert shown == [(1, "yes"), (0, "no"), (1, "yes")]


def test_tokens_are_counted_by_a_tokenizer_that_has_no_tokenizer_json(write, tiny_base, tmp_path):
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    vocabulary = json.loads((tmp_path / "base" / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    (tmp_path / "base" / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    path = write(model={"base": str(tmp_path / "base")})
    with_file = check(path, [])
    (tmp_path / "base" / "tokenizer.json").unlink()
    assert check(path, [])["counted"] == with_file["counted"] == "tokens"


def test_column_that_another_role_has_is_not_the_one_that_is_meant(write):
    columns = {"sentence1": "sentence1", "sentence2": "sentence_2", "label": "score"}
    (found,) = check(write(data={"format": "labeled_pair", "columns": columns}, loss="cosent"), [])["errors"]
    assert "did you mean `sentence2`?" in found.message
    columns = {"sentence1": "sentence_1", "sentence2": "sentence1", "label": "score"}
    (found,) = check(write(data={"format": "labeled_pair", "columns": columns}, loss="cosent"), [])["errors"]
    assert "did you mean `sentence2`?" in found.message


def test_samples_with_prompts_chosen_for_roles(write):
    recipe = write(model=PROMPTS, data={"prompts": {"anchor": "document"}})
    assert check(recipe, [])["samples"][0]["anchor"].startswith("read: the cat")


def test_the_prompt_of_negatives_is_that_of_each_of_several(write):
    data = {"format": "triplet", "columns": {"negative": ["negative", "text"]}, "prompts": {"negative": "query"}}
    sample = check(write(model=PROMPTS, data=data, loss="triplet"), [])["samples"][0]
    assert sample["negative_1"] == "ask: nothing but tigers"
    assert sample["negative_2"].startswith("ask: cat cat")


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"data": {"format": "triplet"}, "loss": "triplet"},
        {"data": {"format": "labeled_text"}, "loss": "batch_all_triplet", "train": {"batch_size": 6}},
        {"data": {"format": "labeled_pair", "columns": {"label": "score"}}, "loss": "cosent"},
    ],
)
def test_check_foretells_the_steps_and_tokens_of_train(sections, write, run, tiny_base):
    """Of an epoch; with words for tokens, where the vocabulary is yet to be learnt, only the steps."""
    train = {"max_steps": None, "epochs": 1, "batch_size": 4, "accumulate_steps": 1} | sections.get("train", {})
    model = {"base": str(tiny_base("bert")), "max_seq_length": 16}
    path = write(**{**sections, "train": train, "model": model})
    foretold = check(path, [])
    events = run(path)
    started = next(event for event in events if isinstance(event, Started))
    steps = [event for event in events if hasattr(event, "grad_norm")]
    assert foretold["steps"] == started.total_steps
    assert foretold["rows"] == started.rows
    assert foretold["tokens"] == sum(step.tokens for step in steps)


def test_train_says_what_check_says(write, run, caplog):
    path = write(train={"warmup_steps": 100, "learning_rate": 1e-6}, data={"limit": 9})
    said = check(path, [])["warnings"]
    assert {"learning-rate", "longer-than-run", "few-negatives"} <= set(codes(said))
    with caplog.at_level(logging.WARNING, "stfit"):
        run(path)
    for problem in said:
        assert any(problem.message in message for message in caplog.messages), problem


def test_check_counts_the_cut_texts_of_the_rows_that_a_short_run_trains_on(write, run, caplog, tiny_base):
    rows = [{"anchor": f"the cat {i}", "positive": f"the dog {i} " * (1 if i % 3 else 9)} for i in range(40)]
    path = write(model={"base": str(tiny_base("bert")), "max_seq_length": 16}, train={"max_steps": 1})
    (path.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (said,) = (problem for problem in check(path, [])["warnings"] if problem.code == "cut-texts")
    with caplog.at_level(logging.WARNING, "stfit"):
        run(path)
    assert any(said.message in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("key", "value", "under"),
    [
        ("split", "trian", "trian"),
        ("split", "train[:5", "train[:5"),
        ("revision", "main", "main"),
        ("where", {"kind": "none"}, "where"),
        ("holdout", {"rows": 12}, "holdout"),
        ("columns", {"anchor": "anhcor"}, "anhcor"),
        ("columns", {"postive": "positive"}, "positive"),
        ("columns", {"anchor": "["}, "["),
        ("columns", {"anchor": "score"}, "score"),
        ("limit", 3, None),
    ],
)
def test_a_mistake_of_the_data_is_shown_at_the_key_it_is_about(write, key, value, under):
    (found, *_) = check(write(data={key: value}), [])["errors"] or [None]
    if under is None:
        assert found is None
        return
    line, carets = found.snippet.splitlines()
    assert line[carets.index("^") : len(carets)].strip('"') == under


def test_a_batch_larger_than_all_rows_is_told(write):
    assert "batch-size" not in codes(check(write(train={"batch_size": 9}, data={"limit": 9}), [])["warnings"])
    assert "batch-size" in codes(check(write(train={"batch_size": 10}, data={"limit": 9}), [])["warnings"])


def test_what_check_refuses_train_refuses(write, stfit, tmp_path):
    path = write(data={"columns": {"positive": "anchor"}})
    error = check(path, [])["error"]
    code, _, err = stfit("train", path, "--runs", tmp_path / "runs")
    assert code == error["exit_code"] == 3
    assert error["message"] in err


def test_mistakes_of_all_kinds_are_found_together_and_the_lowest_exit_code_wins(write):
    result = check(write(loss="cosent", model={"base": "./nowhere"}, data={"dataset": "./nothing.csv"}), [])
    assert len(result["errors"]) == 3
    assert result["error"]["exit_code"] == 2
    assert all(problem.message in result["error"]["message"] for problem in result["errors"])


def test_a_doubt_names_the_line_of_its_key(write, tmp_path):
    base = write()
    path = tmp_path / "outer.yaml"
    path.write_text(f"extends: {base.name}\ntrain:\n  epochs: 1\n  max_steps: null\n  learning_rate: 0\n")
    (problem,) = [problem for problem in check(path, [])["warnings"] if problem.code == "learning-rate"]
    assert (problem.file, problem.line) == (str(path), 5)
    (problem,) = [
        problem for problem in check(path, ["train.learning_rate=1e-7"])["warnings"] if problem.code == "learning-rate"
    ]
    assert problem.line is None


def test_strict_makes_errors_of_warnings(write, stfit):
    path = write(train={"batch_size": 4})
    code, out, _ = stfit("check", path, "--json")
    loose = json.loads(out)
    assert (code, loose["errors"]) == (0, [])
    assert "error" not in loose
    code, out, _ = stfit("check", path, "--json", "--strict")
    strict = json.loads(out)
    assert (code, strict["error"]["exit_code"], strict["warnings"]) == (3, 3, [])
    assert strict["errors"] == loose["warnings"] != []


def test_json_problems_have_the_keys_of_the_design(write, stfit):
    code, out, _ = stfit("check", write(train={"batchsize": 4}), "--json")
    (problem,) = json.loads(out)["errors"]
    assert code == 2
    assert set(problem) == {"code", "message", "file", "line", "column", "row"}
    assert problem["line"] == 1


def test_a_recipe_error_shows_its_line_with_a_caret(write, stfit):
    code, out, err = stfit("check", write(train={"batchsize": 4}))
    assert code == 2
    assert "^^^^" in err
    assert "1 error," in out


def test_a_base_that_the_hub_can_not_be_asked_for_is_a_warning(write, monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    result = check(write(model={"base": "nobody/no-such-model"}), [])
    assert "base-unseen" in codes(result["warnings"])
    assert "error" not in result
    assert (result["memory_mib"], result["counted"].partition(",")[0]) == (None, "words")


def test_lengths_are_those_of_the_tokenizer_of_transformers_uncut(write, tiny_base):
    recipe = load_recipe(write(model={"base": str(tiny_base("roberta"))})).recipe
    examples, _ = load_examples(recipe.data, recipe.data.format, recipe.seed)
    prompts = dict.fromkeys(examples.texts, "ask: " * 40)
    table = count_tokens(inspect_model(recipe.model).load_tokenizer(), examples, prompts)
    tokenizer = build_encoder(recipe.model).tokenizer.hf_tokenizer
    texts = dict.fromkeys("ask: " * 40 + text for text in examples.all_texts())
    assert table.lengths().tolist() == [len(tokenizer(text, truncation=False)["input_ids"]) for text in texts]
    assert table.lengths().min() > 64


def test_only_whole_splits_of_the_hub_are_shortened(write):
    evaluator = {"type": "triplet", "dataset": "a/b", "name": "kept"}
    path = write(data={"dataset": "a/b", "split": "train + validation"}, eval=[{**evaluator, "split": "test[:5%]"}])
    recipe = load_recipe(path).recipe
    short = limit_hub_splits(recipe)
    assert short.data.split == f"train[:{FIRST_ROWS}]+validation[:{FIRST_ROWS}]"
    assert short.eval[0].split == "test[:5%]"
    local = load_recipe(write()).recipe
    assert limit_hub_splits(local) == local


def test_dropped_rows_are_named(write, tmp_path):
    path = write(data={"dataset": "./holes.jsonl"})
    rows = [{"anchor": f"text {i}", "positive": None if i in (4, 7) else f"other {i}"} for i in range(12)]
    (tmp_path / "holes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (problem,) = [problem for problem in check(path, [])["warnings"] if problem.code == "dropped-rows"]
    assert problem.row == 5
    assert "2 empty text (rows 5, 8)" in problem.message
