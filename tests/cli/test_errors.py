"""A failure is a message that says where, an exit code that says of what kind, and never a traceback unless asked."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

from stfit.cli.failures import failure_from
from stfit.commands import train as command

NO_SUCH_OPTION = ("No such option: --frehs", "No such option '--frehs'")
"""In the words of older and of newer versions of click."""
FAILURES = {
    "unknown key": ("train recipe.yaml train.epoch=1", 2, "did you mean `epochs`?"),
    "not a key": ("train recipe.yaml epochs", 2, "an override is `key.path=value`"),
    "no recipe": ("train nowhere.yaml", 2, "cannot read recipe `nowhere.yaml`"),
    "loss and format": ("train recipe.yaml loss=triplet", 2, "loss: `triplet` does not support format `labeled_pair`"),
    "no such option": ("train recipe.yaml --frehs", 2, NO_SUCH_OPTION),
    "a key of the recipe as an option": ("train recipe.yaml --epochs 3", 2, "set without dashes: train.epochs=..."),
    "an option of a script": ("train recipe.yaml --per-device-train-batch-size 8", 2, "train.batch_size=..."),
    "an option that is no key": ("train recipe.yaml --gradient-checkpointing", 2, "`train.mini_batch_size` needs less"),
    "no such verb": ("trian recipe.yaml", 2, "Did you mean 'train'?"),
    "a verb of another tool": ("finetune recipe.yaml", 2, "(use `stfit train`)"),
    "missing argument": ("encode runs/recipe -o o.npy", 2, "Missing argument 'INPUT'"),
    "two options against each other": ("train recipe.yaml --fresh --resume", 2, "are mutually exclusive"),
    "more negatives than ranks": (
        "mine runs/recipe recipe.yaml -o m.jsonl --ranks 1:3 --per-row 4",
        2,
        "per_row 4: ranks 1:3 allow 1 to 3",
    ),
    "nothing to resume": ("train recipe.yaml --resume", 2, "there is no run in runs/recipe"),
    "device of no kind": ("train recipe.yaml train.device=gpu", 2, "write auto, cpu, cuda"),
    "device": ("train recipe.yaml train.device=mps:7", 2, "device `mps:7` is not available"),
    "best metric": ("train recipe.yaml train.best=kept/accuracy", 2, "no evaluator computes `kept/accuracy`"),
    "eval of nothing": (
        "eval recipe.yaml",
        2,
        "there is no run in runs/recipe; train it first: stfit train recipe.yaml",
    ),
    "eval of what": ("eval runs/recipe", 2, "--recipe RECIPE"),
    "column": ("train recipe.yaml data.columns.sentence1=title", 3, "title"),
    "file": ("train recipe.yaml data.dataset=./no.jsonl", 3, "no.jsonl"),
    "texts": ("encode ./folder no.txt -o out.npy", 3, "no.txt does not exist"),
    "base": ("train recipe.yaml model.base=./folder", 4, "neither config.json nor modules.json"),
    "model": ("encode ./folder texts.txt -o out.npy", 4, "neither config.json nor modules.json"),
    "divergence": ("train recipe.yaml train.learning_rate=1e30", 6, "Lower train.learning_rate"),
    "runs": ("train recipe.yaml --runs texts.txt", 9, "choose another folder with --runs"),
}


@pytest.mark.parametrize(("line", "code", "message"), FAILURES.values(), ids=FAILURES)
def test_every_kind_of_failure_has_its_exit_code_and_says_what_to_do(run, folder, line, code, message):
    (folder / "folder").mkdir()
    ended, out, err = run(line)
    assert (ended, out) == (code, "")
    assert any(words in err for words in (message if isinstance(message, tuple) else [message]))
    assert "Traceback" not in err
    assert "bug" not in err


def test_wrong_recipe_is_named_with_file_line_and_column(run, folder):
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("batch_size: 5", "batch_size: five"))
    _, _, err = run("train recipe.yaml")
    assert err.startswith("stfit: recipe.yaml:4:21: ")


def test_what_is_not_there_is_shown_where_the_recipe_names_it(run, folder):
    recipe = folder / "recipe.yaml"
    given = recipe.read_text()
    base = "{type: scratch, hidden_size: 16, num_layers: 1, num_heads: 2}"
    recipe.write_text(given.replace("./rows.jsonl", "./no.jsonl").replace(base, "./no"))
    _, _, err = run("check recipe.yaml")
    assert [f"recipe.yaml:{line}:" in err for line in (1, 2, 6)] == [True] * 3
    recipe.write_text(given.replace("split: train", "split: train, columns: {label: mark}"))
    _, _, err = run("train recipe.yaml")
    assert "rows.jsonl: there is no column `mark`" in err  # whose own place is a file of data
    assert "\n   6 |   - {type: similarity" in err


def test_wrong_rows_are_named(run, folder):
    rows = (folder / "rows.jsonl").read_text().splitlines()
    rows[6] = json.dumps({"sentence1": 7, "sentence2": "seven", "label": 0.5})
    (folder / "rows.jsonl").write_text("\n".join(rows))
    code, _, err = run("train recipe.yaml")
    assert code == 3
    assert "row 7" in err
    assert str(folder / "rows.jsonl") in err


def test_mistakes_are_told_together(run):
    _, _, err = run("train recipe.yaml train.epoch=1 data.fromat=triplet seed=x")
    assert all(word in err for word in ("epoch", "fromat", "seed"))


def test_debug_adds_a_traceback_and_changes_nothing_else(run, folder):
    line = "train recipe.yaml data.columns.sentence1=title --json"
    _, plain_out, plain_err = run(line)
    code, out, err = run(f"{line} --debug")
    assert (code, out) == (3, plain_out)
    assert "Traceback (most recent call last)" in err
    assert err.endswith(plain_err)


def test_what_nobody_foresaw_is_called_a_bug(run, monkeypatch):
    monkeypatch.setattr(command, "build_train_objects", lambda *arguments: 1 / 0)
    code, out, err = run("train recipe.yaml --json")
    assert json.loads(out)["error"] == {
        "class": "bug",
        "message": "ZeroDivisionError: division by zero\n"
        "This is a bug in stfit; run again with --debug for a traceback.",
        "exit_code": 1,
    }
    assert code == 1
    assert "Traceback" not in err


NO_MEMORY = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (MemoryError, 9), (NO_MEMORY, 9)])
def test_interruption_and_lack_of_memory_have_their_codes(run, monkeypatch, error, code):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(command, "build_train_objects", fail)
    ended, _, err = run("train recipe.yaml")
    assert ended == code
    assert "bug" not in err


@pytest.mark.slow
@pytest.mark.parametrize("key", ["model.base=someone/no-such-base", "data.dataset=someone/no-such-rows"])
def test_hub_that_is_out_of_reach_is_said_plainly(folder, key):
    ended = subprocess.run(
        [sys.executable, "-m", "stfit", "train", "recipe.yaml", key, "--json"],
        env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 5, ended.stderr
    error = json.loads(ended.stdout)["error"]
    assert (error["class"], error["exit_code"]) == ("HubError", 5)
    assert "someone/no-such-" in error["message"]
    assert "Traceback" not in ended.stderr


def test_a_recipe_that_can_not_work_is_refused_before_torch_is_loaded_with_all_that_is_wrong(folder):
    code = (
        "import sys; from stfit.cli import main; sys.argv = ['stfit', 'train', 'recipe.yaml', 'loss=triplet', "
        "'data.columns.sentence1=title']\n"
        "try: main.main()\nfinally: print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "False\n")
    assert "`triplet` does not support format" in ended.stderr
    assert "title" in ended.stderr


def test_a_torch_that_is_too_old_is_no_bug(monkeypatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.3.1" if name == "torch" else real(name))
    failure = failure_from(ImportError("cannot import name 'varlen' from 'torch.nn'"))
    assert (failure.exit_code, failure.message) == (
        9,
        "this environment does not fit stfit: torch>=2.6 is needed, and torch is 2.3.1",
    )


def test_a_python_that_is_too_old_ends_with_one_sentence() -> None:
    old = "import sys; sys.version_info = (3, 9, 0); import stfit.cli.main"
    process = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (9, "stfit needs Python 3.11 or newer, and this is 3.9\n")
