"""The verbs at work: what they say, what they write."""

import inspect
import json
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

from stfit.cli.app import app
from stfit.cli.options import RecipeArgument
from stfit.encoder.build import load_encoder

VERBS = [command for command in app.registered_commands if not command.hidden]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name or verb.callback.__name__)
def test_help_of_every_verb_has_an_example_of_it(run, verb):
    name = verb.name or verb.callback.__name__
    code, out, _ = run(f"{name} --help")
    assert code == 0
    assert f"Example: stfit {name}" in " ".join(out.split())


def test_every_verb_that_takes_a_recipe_takes_overrides():
    parameters = [inspect.signature(verb.callback, eval_str=True).parameters for verb in VERBS]
    of_recipes = [names for names in parameters if "recipe" in names and names["recipe"].annotation == RecipeArgument]
    assert len(of_recipes) > 3
    assert all("overrides" in names for names in of_recipes)


def test_version_is_said(run):
    assert run("--version") == (0, f"stfit {version('stfit')}\n", "")


def test_no_arguments_mean_help(run):
    code, out, err = run("")
    assert (code, err) == (0, "")
    assert "Usage: stfit" in out


def test_module_is_the_command(folder):
    ended = subprocess.run([sys.executable, "-m", "stfit", "train", "--help"], capture_output=True, text=True)
    assert ended.returncode == 0
    assert "Usage: stfit train" in ended.stdout


def test_recipe_run_folder_and_model_folder_are_measured_alike(run, folder):
    trained = json.loads(run("train recipe.yaml --json")[1])
    lines = ["recipe.yaml", "runs/recipe", "runs/recipe/model --recipe recipe.yaml", "runs/recipe --recipe recipe.yaml"]
    for line in lines:
        code, out, _ = run(f"eval {line} --json")
        assert code == 0
        assert json.loads(out)["metrics"] == pytest.approx(trained["metrics"], abs=1e-6), line


def test_run_of_one_recipe_is_measured_with_the_evaluators_of_another(run, folder):
    run("train recipe.yaml")
    other = (folder / "recipe.yaml").read_text().replace("kept|here", "another")
    (folder / "other.yaml").write_text(other)
    code, out, _ = run("eval recipe.yaml --recipe other.yaml --json")
    assert code == 0
    assert {name.split("/")[0] for name in json.loads(out)["metrics"]} == {"another"}
    code, out, _ = run("eval recipe.yaml eval.0.name=renamed --json")
    assert {name.split("/")[0] for name in json.loads(out)["metrics"]} == {"renamed"}


def test_eval_of_a_recipe_without_evaluators_says_so(run, folder):
    run("train recipe.yaml ~eval")
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().partition("eval:")[0])
    code, _, err = run("eval recipe.yaml")
    assert code == 2
    assert "no `eval:` list" in err


def test_encode_writes_one_row_a_line_as_the_model_embeds_it(run, folder):
    run("train recipe.yaml")
    lines = ["about rain", "", "a page\x0cbreak and a\u2028separator", "über Tee"]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, out, _ = run("encode runs/recipe texts.txt -o out.npy --json")
    result = json.loads(out)
    assert (code, result["rows"], result["embedding_dim"]) == (0, 4, 16)
    written = np.load(folder / "out.npy")
    assert written.dtype == np.float32
    expected = load_encoder(folder / "runs" / "recipe" / "model").encode(lines)
    np.testing.assert_array_equal(written, expected)
    run("encode runs/recipe/model texts.txt -o small.npy --truncate-dim 8 --normalize")
    small = expected[:, :8] / np.linalg.norm(expected[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(folder / "small.npy"), small, rtol=1e-5)


def test_encode_of_an_empty_file_gives_no_rows(run, folder):
    run("train recipe.yaml")
    (folder / "texts.txt").write_text("")
    code, _, _ = run("encode runs/recipe texts.txt -o out.npy")
    assert code == 0
    assert np.load(folder / "out.npy").shape == (0, 16)


def test_prompt_of_the_model_is_put_before_every_text(run, folder):
    run('train recipe.yaml model.prompts.query="about:"')
    run("encode runs/recipe texts.txt -o out.npy --prompt-name query")
    texts = (folder / "texts.txt").read_text().splitlines()
    expected = load_encoder(folder / "runs" / "recipe" / "model").encode([f"about:{text}" for text in texts], prompt="")
    np.testing.assert_allclose(np.load(folder / "out.npy"), expected, atol=1e-6)
    code, _, err = run("encode runs/recipe texts.txt -o out.npy --prompt-name qurey")
    assert code == 4
    assert "did you mean `query`?" in err


def test_encode_refuses_what_it_can_not_read_or_write(run, folder):
    run("train recipe.yaml")
    (folder / "latin.txt").write_bytes("Käse".encode("latin-1"))
    for line, code, message in (
        ("encode runs/recipe latin.txt -o out.npy", 3, "latin.txt:1: line 1 is not utf-8"),
        ("encode runs/recipe texts.csv -o out.npy", 3, "texts.csv does not exist: did you mean `texts.txt`?"),
        ("encode runs/recipe texts.txt -o out.txt", 2, "the output must be a .npy"),
        ("encode runs/recipe texts.txt -o out.npy --precision int4", 2, "'int4' is not one of 'float32', 'float16'"),
        ("encode runs/recipe texts.txt -o out.npy --batch-tokens 0", 2, "must be a number above 0, or auto"),
        ("encode runs/recipe texts.txt -o no/out.npy", 9, "no/out.npy: can't be written"),
        ("encode runs/recipe texts.txt -o out\udced", 2, "a path must be UTF-8 text"),
    ):
        ended, _, err = run(line)
        assert ended == code, line
        assert message in err


def test_trained_again_prints_the_same_result(run):
    first = json.loads(run("train recipe.yaml --json")[1])
    code, out, err = run("train recipe.yaml --json")
    assert code == 0
    assert json.loads(out) == first
    assert "already finished; use --fresh to train again" in err


def test_texts_nearest_to_a_query_come_first_with_their_ids_and_titles(run, folder):
    run("train recipe.yaml")
    _, out, _ = run("similar runs/recipe texts.txt --query tea --top 2 --json")
    (found,) = json.loads(out)["queries"]
    assert {near["text"] for near in found["nearest"]} == {"about rain", "about tea"}
    assert found["nearest"][0]["similarity"] >= found["nearest"][1]["similarity"]
    assert {near["id"] for near in found["nearest"]} == {0, 1}
    rows = [{"id": "r1", "title": "Rain", "text": "about rain"}, {"id": "t1", "title": "about", "text": "about tea"}]
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = run("similar runs/recipe documents.jsonl --query tea --top 2")[1].splitlines()
    # a title that the text begins with is not said twice
    assert {line.split("  ", 2)[2] for line in lines[2:]} == {"r1  Rain  about rain", "t1  about tea"}
    run("encode runs/recipe documents.jsonl -o e.parquet --with-text --keep id,title")
    _, out, err = run("similar runs/recipe e.parquet --query tea --top 2")
    assert sorted(out.splitlines()) == sorted(lines)
    assert "2 embeddings of" in err
    assert len(run("similar runs/recipe e.parquet")[1].splitlines()) == 3
