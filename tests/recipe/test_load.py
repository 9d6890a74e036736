import os
import subprocess
import sys

import pytest

from stfit.errors import RecipeError
from stfit.recipe.dump import to_yaml
from stfit.recipe.load import load_recipe


def strings_in(value):
    if isinstance(value, dict):
        return [text for item in value.items() for text in strings_in(list(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings_in(item)]
    return [value] if isinstance(value, str) else []


def test_a_recipe_is_what_its_file_says(write, valid):
    recipe = load_recipe(write(valid)).recipe
    assert recipe.train.learning_rate == 1e-5
    assert recipe.loss.margin == 3.0
    assert recipe.data.columns["positive"] == "set.pos[0]"
    assert [evaluator.name for evaluator in recipe.eval] == ["stsb", "kept"]


def test_paths_start_from_the_file_that_writes_them(write, valid, tmp_path):
    recipe = load_recipe(write(valid, "deep/recipe.yaml")).recipe
    assert recipe.model.base == str(tmp_path / "deep" / "base")
    assert recipe.data.dataset == str(tmp_path / "rows.jsonl")
    assert recipe.eval[0].dataset == "a/stsb"


def test_values_end_up_as_plain_strings(write, valid):
    recipe = load_recipe(write(valid), ["data.split=test", "model.prompts.document=x"]).recipe
    assert {type(text) for text in strings_in(recipe.model_dump())} == {str}


def test_the_name_defaults_to_the_files_own(write, small):
    write(small, "base.yaml")
    assert load_recipe(write("extends: base.yaml\n", "qqp-triplet.yaml")).recipe.name == "qqp-triplet"
    assert load_recipe(write("extends: base.yaml\nname: given\n", "other.yaml")).recipe.name == "given"


@pytest.mark.parametrize("name", ["é.yaml", "my recipe #1.yaml", "[1].yaml", "run..yaml"])
def test_a_name_taken_from_the_file_is_said_to_be_so(write, small, problems_of, name):
    (problem,) = problems_of(write(small, name))
    assert "The name is that of the file" in problem.message
    assert problem.line is None
    (problem,) = problems_of(write(f"{small}name: é\n", name))
    assert "of the file" not in problem.message
    assert problem.line == 4


def test_standard_input_is_no_dataset_of_a_recipe(write, small, problems_of):
    (problem,) = problems_of(write(small.replace("dataset: a/c", 'dataset: "-"')))
    assert "is standard input, which only `encode` and `similar` read" in problem.message


def test_the_text_is_the_file_as_given(write, valid):
    assert load_recipe(write(valid), ["seed=1"]).text == valid


def test_bare_names_and_class_names_choose_the_same(write, small):
    spellings = ["triplet", "TripletLoss", "{type: triplet}", "{type: TripletLoss}"]
    losses = [load_recipe(write(small.replace("loss: triplet", f"loss: {loss}"))).recipe.loss for loss in spellings]
    assert losses == [losses[0]] * len(spellings)


def test_loading_a_recipe_imports_no_torch(write, valid):
    script = (
        "import sys; from pathlib import Path; from stfit.recipe.load import load_recipe;"
        f"load_recipe(Path({str(write(valid))!r}));"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_resolved_recipe_reads_back_equal(write, valid):
    recipe = load_recipe(write(valid)).recipe
    assert load_recipe(write(to_yaml(recipe), "elsewhere/resolved.yaml")).recipe == recipe


@pytest.mark.parametrize(
    "text",
    ["1e-5", "no", "null", "~", "010", "1_000", "3", ".5", "y", "0x1F", "1:30", "2020-01-01", "", " ", "a: b", "#x",
     "*x", "&x", "!x", "<<", "'", '"', "\\", "- a", "[", "tab\t", "line\nline\n", "\r", "\x85", "\u2028",
     "\ufeff", "\x7f", "😀", "x" * 300],
)  # fmt: skip
def test_any_text_survives_the_resolved_recipe(write, text, small):
    recipe = load_recipe(write(small)).recipe
    odd = recipe.model_copy(update={"model": recipe.model.model_copy(update={"prompts": {text: text}})})
    assert load_recipe(write(to_yaml(odd))).recipe == odd


def test_origins_name_the_file_line_or_command_line_and_leave_out_defaults(write, tmp_path, small):
    base = write(small + "train:\n  epochs: 2\n  batch_size: 8\n", "base.yaml")
    path = write("extends: base.yaml\ntrain:\n  epochs: 3\n")
    origins = {key: str(mark) for key, mark in load_recipe(path, ["seed=1", "loss.margin=2"]).origins.items()}
    assert origins["train.epochs"] == f"{path}:3"
    assert origins["train.batch_size"] == f"{base}:6"
    assert origins["loss.type"] == f"{base}:3"
    assert origins["seed"] == origins["loss.margin"] == "command line"
    assert "train.learning_rate" not in origins
    assert "name" not in origins
    assert "extends" not in origins


def test_a_child_overrides_key_by_key_and_replaces_lists(write, valid):
    write(valid, "base.yaml")
    recipe = load_recipe(write("extends: ./base.yaml\nmodel: {pooling: [max]}\nloss: {margin: 1}\n")).recipe
    assert recipe.model.pooling == ["max"]
    assert recipe.model.prompts == {"query": "query: "}
    assert (recipe.loss.type, recipe.loss.margin) == ("triplet", 1.0)


def test_another_choice_does_not_inherit_the_keys_of_the_first(write, valid):
    write(valid, "base.yaml")
    for loss in ("multiple_negatives_ranking", "{type: MultipleNegativesRankingLoss, scale: 20}"):
        assert (
            load_recipe(write(f"extends: base.yaml\nloss: {loss}\n")).recipe.loss.type == "multiple_negatives_ranking"
        )


def test_a_column_called_type_is_no_choice(write, small):
    write(small.replace("format: triplet", "format: triplet, where: {type: news, year: 3}"), "base.yaml")
    assert load_recipe(write("extends: base.yaml\ndata: {where: {type: blog}}\n")).recipe.data.where == {
        "type": "blog", "year": 3
    }  # fmt: skip


def test_extends_is_relative_to_its_own_file_and_chains(write, small):
    write(small + "seed: 1\n", "a/root.yaml")
    write("extends: ../a/root.yaml\nversion: 1\n", "b/middle.yaml")
    assert load_recipe(write("extends: b/middle.yaml\n")).recipe.seed == 1


def test_a_circle_of_extends_is_shown(write, problems_of):
    write("extends: c.yaml\n", "b.yaml")
    write("extends: a.yaml\n", "c.yaml")
    (found,) = problems_of(write("extends: b.yaml\n", "a.yaml"))
    assert [os.path.basename(part) for part in found.message.split(" -> ")] == ["a.yaml", "b.yaml", "c.yaml", "a.yaml"]
    assert os.path.basename(found.file) == "c.yaml"


def test_mistakes_of_all_files_are_shown_outermost_first(write, problems_of, small):
    base = write(small + "train: {epochs: ten}\n", "base.yaml")
    path = write("extends: base.yaml\nseed: -1\nseed: 2\n")
    found = problems_of(path, "train.best=[]")
    assert [(problem.file, problem.line) for problem in found] == [
        (str(path), 2), (str(path), 3), (str(base), 4), ("command line", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("extends", "word"),
    [
        ("nope.yaml", "No such file"),
        ("basse.yaml", "did you mean `base.yaml`"),
        (".", "folder"),
        ("3", "path"),
        ('"a\\0b"', "null"),
    ],
)
def test_an_extends_that_leads_nowhere_is_shown_at_its_line(write, extends, word, problems_of, small):
    write(small, "base.yaml")
    (found,) = problems_of(write(f"{small}extends: {extends}\n"))
    assert found.line == 4
    assert word in found.message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a" * 201, "201 characters are too many"),
        ("a/b", "letters, digits"),
        ("..", "letters, digits"),
        ("con", "a device on Windows"),
        ("LPT1.x", "a device on Windows"),
        ("run.", "must not end in `.`"),
        ("run.tmp", "choose another name"),
    ],
)
def test_a_run_name_that_a_file_system_can_not_hold_is_refused_with_its_key(tmp_path, name, said):
    path = tmp_path / "r.yaml"
    path.write_text(f"name: {name}\nmodel: {{base: scratch}}\ndata: {{dataset: ./a.csv, format: text}}\nloss: cosent\n")
    with pytest.raises(RecipeError, match=rf"r\.yaml:1:7: `name`.*{said}"):
        load_recipe(path)
