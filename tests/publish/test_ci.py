"""The commands of recipes/ci do what the kit promises: first publish, nothing to do, better, worse."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hub.repository import files_in

KIT = Path(__file__).parents[2] / "recipes" / "ci"
RECIPE = """\
model:
  base: {type: scratch, hidden_size: 16, num_layers: 1, num_heads: 2}
  max_seq_length: 16
data: {dataset: ./rows.jsonl, format: labeled_pair}
loss: cosent
train: {max_steps: STEPS, batch_size: 12, learning_rate: 0.01, schedule: constant, device: cpu}
eval: [{type: similarity, name: scores, dataset: ./rows.jsonl, split: train}]
gate: [{metric: scores/spearman_cosine, against: published, confidence: null}]
push: {repo: tiny}
"""


def steps_of_workflow() -> list[str]:
    """The commands of the job, after those that install."""
    [job] = yaml.safe_load((KIT / "github-actions.yml").read_text())["jobs"].values()
    return [step["run"] for step in job["steps"] if "run" in step and step["name"] != "Install"]


def steps_of_makefile() -> list[str]:
    """What make would run."""
    process = subprocess.run(
        ["make", "--no-print-directory", "-n", "-f", KIT / "Makefile"], capture_output=True, text=True, check=True
    )
    return process.stdout.splitlines()


def test_workflow_is_one_that_actions_would_start():
    workflow = yaml.safe_load((KIT / "github-actions.yml").read_text())
    assert workflow[True]["schedule"] == [{"cron": "17 3 * * 1"}]  # YAML 1.1 takes `on` for true
    [job] = workflow["jobs"].values()
    assert job["env"]["HF_TOKEN"] == "${{ secrets.HF_TOKEN }}"
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in job["steps"] if "uses" in step)


def test_workflow_and_makefile_run_the_same_commands():
    plain = [command.replace('"$RECIPE"', '"recipe.yaml"').strip() for command in steps_of_workflow()]
    assert plain == steps_of_makefile()


@pytest.fixture
def job(hub, tmp_path, trained) -> Callable[[list[str], int], tuple[int, str]]:
    """Runs the commands with a recipe of so many steps: the exit code of the last one, and the job's summary."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "stfit").write_text(f'#!/bin/sh\nexec {sys.executable} -m stfit "$@"\n')
    (tmp_path / "bin" / "stfit").chmod(0o755)
    (tmp_path / "rows.jsonl").write_text((trained.parents[1] / "secret-project" / "rows.jsonl").read_text())
    env = hub.env(tmp_path / "home", "hf_me") | {"RECIPE": "recipe.yaml", "OMP_NUM_THREADS": "1"}

    def run(commands: list[str], steps: int) -> tuple[int, str]:
        summary = tmp_path / "summary.md"
        summary.write_text("")
        (tmp_path / "recipe.yaml").write_text(RECIPE.replace("STEPS", str(steps)))
        here = env | {"PATH": f"{tmp_path / 'bin'}:{env['PATH']}", "GITHUB_STEP_SUMMARY": str(summary)}
        for command in commands:
            process = subprocess.run(
                ["bash", "-e", "-c", command], cwd=tmp_path, env=here, capture_output=True, text=True, check=False
            )
            if process.returncode:
                break
        return process.returncode, process.stdout + process.stderr + summary.read_text()

    return run


@pytest.mark.parametrize(
    ("trained", "code", "pushed"),
    [
        ('{"run": "runs/questions", "steps": 1}', 0, "push runs/questions"),
        ('{"unchanged": true, "repo": "me/tiny"}', 0, ""),
        ("{}", 1, ""),
        ("", 1, ""),
    ],
)
def test_the_run_that_was_trained_is_published_or_the_job_fails(tmp_path, trained, code, pushed):
    (tmp_path / "trained.json").write_text(trained)
    (tmp_path / "stfit").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "stfit").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", "-e", "-c", steps_of_workflow()[-1]]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (code, pushed)


@pytest.mark.slow
def test_first_publish_then_nothing_to_do_then_better_then_worse(hub, job):
    code, output = job(steps_of_workflow(), 2)
    assert code == 0, output
    repository = hub.state.repositories["model", "me/tiny"]
    first = repository.head.oid
    assert "skipped: nothing is published at me/tiny yet" in output

    code, output = job(steps_of_workflow(), 2)
    assert code == 0, output
    assert output == ""  # there is no run to push
    assert repository.head.oid == first

    code, output = job(steps_of_workflow(), 40)
    assert code == 0, output
    better = repository.head.oid
    assert better != first
    readme = repository.head.files["README.md"].content.decode()
    assert "| Metric | Base | This model | Gain (interval) | Published before | Gain over it (interval) |" in readme

    code, output = job(steps_of_workflow(), 1)
    assert code == 7, output
    assert "NOT PASSED" in output
    assert "| scores/spearman_cosine against published |" in output
    assert repository.head.oid == better


@pytest.mark.slow
def test_force_publishes_and_says_so_in_the_card(hub, job):
    train, push = steps_of_makefile()[1], "stfit push runs/recipe --json"
    assert job([train, push], 40)[0] == 0
    code, output = job([train, push], 1)
    assert code == 7, output
    code, output = job([train, push + " --force"], 1)
    assert code == 0, output
    readme = hub.state.repositories["model", "me/tiny"].head.files["README.md"].content.decode()
    assert "> **Published by force: 1 of 1 gates failed" in readme
    code, again = job([push + " --force"], 1)
    assert code == 0, again
    assert not json.loads(again[: again.rindex("}") + 1])["changed"]
    assert files_in  # the card of the run itself is not touched
