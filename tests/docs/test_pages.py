"""Everything in the README and the guides is run as it stands, in order: each command, recipe, script and diff."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from docs.conftest import README
from docs.test_stories import STORIES

from stfit.cli.app import app
from stfit.evaluation.registry import Evaluator
from stfit.losses.registry import LOSSES
from stfit.recipe.load import load_recipe
from stfit.spec import union_members

ROOT = README.parent
GUIDES = (
    "data", "models", "methods", "evaluation", "publishing",
    "encoding", "runs", "scaling", "scale", "performance", "results", "comparison",
    "stability", "changelog", "contributing",
)  # fmt: skip
PAGES = {"README.md": README} | {name: ROOT / "recipes" / "guides" / f"{name}.md" for name in GUIDES}
TEXTS = {name: page.read_text(encoding="utf-8") for name, page in PAGES.items()}


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", TEXTS[page], re.DOTALL)


OWN_RECIPE = blocks("README.md", "yaml")[0]


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


def test_every_guide_is_linked_and_every_block_is_of_a_kind_that_is_run():
    assert {path.stem for path in (ROOT / "recipes" / "guides").iterdir()} == {*GUIDES, *STORIES}
    assert all(f"recipes/guides/{name}.md" in TEXTS["README.md"] for name in (*GUIDES, *STORIES))
    for name, text in TEXTS.items():
        assert set(re.findall(r"^```(\w+)$", text, re.MULTILINE)) <= {"sh", "yaml", "python", "text", "diff"}, name


def test_the_readme_fits_one_sitting():
    assert len(TEXTS["README.md"].splitlines()) <= 170


def test_the_source_tree_names_the_rooms_that_exist():
    (tree,) = blocks("contributing", "text")
    rooms = set(re.findall(r"^  (\w+)/", tree, re.MULTILINE))
    assert rooms == {path.parent.name for path in (ROOT / "stfit").glob("*/__init__.py")}
    for room in re.findall(r"^  (\S+\.py)", tree, re.MULTILINE):
        assert (ROOT / "stfit" / room).exists(), room


def test_make_has_the_targets_that_are_named():
    lines = [parts[0] for page in PAGES for block in blocks(page, "sh") for _, parts in commands_in(block)]
    named = {line[1] for line in lines if line[0] == "make"}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"quickstart", "test"} <= named <= targets


@pytest.fixture(scope="module")
def walked(stfit, desk):
    """The reader's folder after every command of the pages was run in it, except `make` and the shell's own."""
    (desk / "recipe.yaml").write_text(OWN_RECIPE)
    for page in PAGES:
        if page == "evaluation":  # by then the reader has added evaluators and a gate to the recipe
            (desk / "recipe.yaml").write_text(completed(blocks(page, "yaml")[0]))
            follow(stfit, [["stfit", "train", "recipe.yaml", "train.epochs=2"]], desk)
        for block in blocks(page, "sh"):
            for line, parts in commands_in(block):
                if not any(word in line for word in ELSEWHERE):
                    follow(stfit, parts, desk, (0, 7) if "eval" in line else (0,))
    return desk


@pytest.mark.slow
def test_every_command_of_the_pages_runs(walked, hub_of_readme):
    assert (walked / "runs" / "recipe" / "report.html").is_file()
    assert (walked / "runs" / "comparison.html").is_file()
    assert (walked / "embeddings.npy").is_file()
    assert (walked / "ranges.json").is_file()
    assert (walked / "mined.jsonl").is_file()
    assert ("model", "me/my-encoder") in hub_of_readme.state.repositories


@pytest.mark.slow
def test_the_example_of_every_help_runs(walked, stfit):
    done = {line for page in PAGES for block in blocks(page, "sh") for line, _ in commands_in(block)}
    for command in app.registered_commands:
        example = " ".join((command.callback.__doc__ or "").partition("Example: ")[2].split())
        if not command.hidden and " ".join(shlex.split(example)) not in done:
            follow(stfit, [shlex.split(part) for part in example.split("&&")], walked, (0, 7))


def completed(fragment):
    """A recipe from a part of one: the sections that it leaves out are those of the README's first recipe."""
    given = set(re.findall(r"^(\w+):", fragment, re.MULTILINE))
    given |= {"eval"} if "data" in given else set()  # which measures a part of that data
    return fragment + "".join(line + "\n" for line in OWN_RECIPE.splitlines() if line.partition(":")[0] not in given)


@pytest.mark.parametrize("page", PAGES)
def test_recipes_of_the_pages_are_right(page, tmp_path):
    for block in blocks(page, "yaml"):
        (tmp_path / "recipe.yaml").write_text(completed(block))
        load_recipe(tmp_path / "recipe.yaml")


def test_the_recipe_of_the_reference_is_right(tmp_path):
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
    (block,) = (block for block in blocks("README.md", "python") if "sentence_transformers" not in block)
    ending = "\nprint(result['model'], embeddings.shape)"
    assert "recipe/model (2, 32)" in run_script(DATASET + block + ending, walked, hub_of_readme)


@pytest.mark.slow
def test_python_of_the_page_on_stability_runs(walked, hub_of_readme):
    (block,) = blocks("stability", "python")
    assert "'stsb/spearman_cosine'" in run_script(block, walked, hub_of_readme)
    assert {"hard.jsonl", "vectors.npy"} <= {path.name for path in walked.iterdir()}


@pytest.mark.slow
def test_the_script_and_its_recipe_run(walked, hub_of_readme, stfit):
    (script,) = (block for block in blocks("README.md", "python") if "sentence_transformers" in block)
    run_script(script, walked, hub_of_readme)
    (walked / "moved.yaml").write_text(next(block for block in blocks("README.md", "yaml") if "CoSENTLoss" in block))
    follow(stfit, [["stfit", "train", "moved.yaml"]], walked)


def test_every_loss_and_evaluator_has_a_row_in_the_table():
    text = TEXTS["README.md"]
    table = text[text.index("| your rows") : text.index("Loss values and gradients")]
    rows = [
        [set(re.findall(r"`(\w+)`", cell)) for cell in line.split("|")[1:-1]] for line in table.splitlines() if line
    ]
    for loss in LOSSES:
        of_loss = [formats for _, formats, losses, *_ in rows[2:] if loss.tag() in losses]
        fitting = {fit.format for fit in loss.fits}
        assert of_loss, f"{loss.tag()} is in no row of the README's table"
        assert all(formats & fitting for formats in of_loss), f"{loss.tag()} does not learn from {of_loss}"
    for evaluator in union_members(Evaluator):
        assert f"`{evaluator.tag()}`" in TEXTS["evaluation"]


def anchors(text):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[page]):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            path = PAGES[page].parent / file if file else PAGES[page]
            assert path.exists(), target
            assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


def test_a_shell_completes_verbs():
    env = os.environ | {"_STFIT_COMPLETE": "complete_bash", "COMP_WORDS": "stfit tr", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", ENTRY], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["train"], done.stderr
    env = os.environ | {"_STFIT_COMPLETE": "complete_bash", "COMP_WORDS": "stfit train --re", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-c", ENTRY], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["--resume"], done.stderr


ENTRY = "import sys; sys.argv = ['stfit']; from stfit.cli.main import main; main()"
