"""What the README says is done here as it stands, in its order: each command, each recipe, each script."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from docs.conftest import README

from stfit.cli.app import app
from stfit.evaluation.registry import Evaluator
from stfit.losses.registry import LOSSES
from stfit.recipe.load import load_recipe
from stfit.spec import alternatives

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
BLOCKS = [(language, block) for language, block in re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)]
SHELL, YAML, PYTHON = ([block for language, block in BLOCKS if language == kind] for kind in ("sh", "yaml", "python"))
OWN_RECIPE = YAML[0]


ELSEWHERE = ("make ", "torchrun ", "--processes ", "--install-completion")
"""What other tests run: targets that install things, several processes, the shell's own files."""


def commands_in(block):
    """The command lines of a block, without comments, each as its parts between `&&`."""
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield " ".join(words), [shlex.split(part, comments=True) for part in line.split("&&")]


def follow(stfit, parts, folder, allowed=(0,)):
    """Run `A=b stfit ... && stfit ...` as a shell would."""
    for words in parts:
        env = dict(word.split("=", 1) for word in words[: words.index("stfit")])
        ended = stfit(*words[words.index("stfit") + 1 :], cwd=folder, **env)
        assert ended.code in allowed, f"{words}: {ended.code}\n{ended.err}"


def test_every_block_is_of_a_kind_that_is_run_here():
    assert {language for language, _ in BLOCKS} == {"sh", "yaml", "python", "text"}
    (drawing,) = [block for language, block in BLOCKS if language == "text"]
    for room in re.findall(r"^  (\S+?)/? ", drawing, re.MULTILINE):
        assert (ROOT / "stfit" / room).exists(), room


def test_make_has_the_targets_that_are_named():
    named = {parts[0][1] for block in SHELL for _, parts in commands_in(block) if parts[0][0] == "make"}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"quickstart", "test"} <= named <= targets


@pytest.fixture(scope="module")
def walked(stfit, desk):
    """The reader's folder once every command of the README was run there, but for `make` and the shell's own."""
    (desk / "recipe.yaml").write_text(OWN_RECIPE)
    measured = next(block for block in YAML if "gate:" in block and "min:" in block)
    for block in SHELL:
        if "--compare" in block:  # by then the reader has written evaluators and a gate below the recipe
            (desk / "recipe.yaml").write_text(OWN_RECIPE + measured)
            follow(stfit, [["stfit", "train", "recipe.yaml", "train.epochs=2"]], desk)
        for line, parts in commands_in(block):
            if not any(word in line for word in ELSEWHERE):
                follow(stfit, parts, desk, (0, 7) if "eval" in line else (0,))
    return desk


def test_every_command_of_the_readme_runs(walked, hub_of_readme):
    assert (walked / "runs" / "recipe" / "report.html").is_file()
    assert (walked / "runs" / "comparison.html").is_file()
    assert (walked / "embeddings.npy").is_file()
    assert (walked / "mined.jsonl").is_file()
    assert ("model", "me/my-encoder") in hub_of_readme.state.repositories


def test_the_example_of_every_help_runs(walked, stfit):
    done = {line for block in SHELL for line, _ in commands_in(block)}
    for command in app.registered_commands:
        example = (command.epilog or "").removeprefix("Example: ")
        if not command.hidden and " ".join(shlex.split(example)) not in done:
            follow(stfit, [shlex.split(part) for part in example.split("&&")], walked, (0, 7))


def test_recipes_of_the_readme_are_right(tmp_path):
    for block in YAML:
        written = block if "model:" in block else OWN_RECIPE + block
        (tmp_path / "recipe.yaml").write_text(written)
        load_recipe(tmp_path / "recipe.yaml")
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "recipes" / "README.md").read_text(), re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(block)
    load_recipe(tmp_path / "recipe.yaml")


def run_script(script, folder, hub):
    """Run a Python script as a client of the Hub."""
    env = os.environ | hub.env(folder / "home", "hf_me") | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


DATASET = """
from datasets import Dataset
dataset = Dataset.from_list([{"question": f"what of {i}", "answer": f"all of {i}"} for i in range(8)])
"""


@pytest.mark.slow
def test_python_of_the_readme_runs(walked, hub_of_readme):
    blocks = [block for block in PYTHON if "sentence_transformers" not in block]
    assert len(blocks) == 2
    assert "recipe/model" in run_script(DATASET + "\n".join(blocks), walked, hub_of_readme)


@pytest.mark.slow
def test_scripts_with_sentence_transformers_run(walked, hub_of_readme, stfit):
    for block in PYTHON:
        if "sentence_transformers" in block:
            run_script(block, walked, hub_of_readme)
    moved = next(block for block in YAML if "CoSENTLoss" in block)
    (walked / "moved.yaml").write_text(moved)
    follow(stfit, [["stfit", "train", "moved.yaml"]], walked)


def test_every_loss_and_evaluator_has_a_row_in_the_table():
    table = TEXT[TEXT.index("| your rows") : TEXT.index("Values and gradients")]
    rows = [
        [set(re.findall(r"`(\w+)`", cell)) for cell in line.split("|")[1:-1]] for line in table.splitlines() if line
    ]
    for loss in LOSSES:
        of_loss = [formats for _, formats, losses, *_ in rows[2:] if loss.tag() in losses]
        fitting = {fit.format for fit in loss.fits}
        assert of_loss, f"{loss.tag()} is in no row of the README's table"
        assert all(formats & fitting for formats in of_loss), f"{loss.tag()} does not learn from {of_loss}"
    for evaluator in alternatives(Evaluator):
        assert f"`{evaluator.tag()}`" in TEXT


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_a_shell_completes_verbs():
    env = os.environ | {"_STFIT_COMPLETE": "complete_bash", "COMP_WORDS": "stfit tr", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", ENTRY], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["train"], done.stderr
    env = os.environ | {"_STFIT_COMPLETE": "complete_bash", "COMP_WORDS": "stfit train --re", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-c", ENTRY], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["--resume"], done.stderr


ENTRY = "import sys; sys.argv = ['stfit']; from stfit.cli.main import main; main()"
