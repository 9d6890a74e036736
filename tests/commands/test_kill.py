"""SIGKILL at any moment, and the same command again: the same bytes as if nothing had happened.

Where a run dies is drawn as the number of a call, of Python or C, counted from the start of the process: reproducible,
and spread over all that a run does, saving and evaluating included. `at_line` and a limit on the size of files then
take one save apart.
"""

import json
import random
import resource
import shutil
import signal

import pytest
from processes import at_call, at_line, run_in_child

from stfit.commands.train import train
from stfit.events import StepInfo
from stfit.recipe.load import load_recipe
from stfit.runtime.run_folder import list_checkpoints
from stfit.training.checkpoint import verify_checkpoint

TRIPLETS = {"data": {"dataset": "./rows.jsonl", "format": "triplet"}, "loss": "triplet"}
CLASSES = {"data": {"dataset": "./rows.jsonl", "format": "labeled_pair"}, "loss": "softmax"}
OFTEN = {"max_steps": 15, "save_every_steps": 3, "eval_every_steps": 5}
CASES = {
    "no_duplicates": {},
    "shuffle, accumulated": {"train": {"sampler": "shuffle", "accumulate_steps": 2}},
    "group_by_label": {"data": {"format": "labeled_text"}, "loss": "batch_all_triplet"},
    "softmax head, gradient caching": CLASSES | {"train": {"mini_batch_size": 1, "schedule": "cosine"}},
    "best, accumulated, cached": {
        "train": {"best": "scores/spearman_cosine", "accumulate_steps": 2, "mini_batch_tokens": 30}
    },
    "several sources": {"data": None, "loss": None, "objectives": [TRIPLETS, CLASSES]},
    "a stream": {"model": {"base": "BERT"}, "data": {"streaming": True, "shuffle_buffer": 8}},
}


@pytest.fixture
def killable(tmp_path, write, similarity, tiny_base):
    """Case -> (start(runs) trains it to its end, metrics and weights of a run that nobody killed, its calls)."""

    def prepare(case):
        sections = CASES[case]
        if "model" in sections:
            sections = sections | {"model": {"base": str(tiny_base("bert"))}}
        recipe = write(eval=[similarity], **sections | {"train": OFTEN | sections.get("train", {})})
        counted = tmp_path / "calls"

        def start(runs):
            return list(train(load_recipe(recipe), tmp_path / runs))

        start("warm")  # what is imported or compiled once is no part of the count
        assert run_in_child(lambda: counted.write_text(str(at_call(lambda: start("whole"), -1)))) == 0
        return start, outcome(tmp_path / "whole"), int(counted.read_text())

    return prepare


def outcome(runs):
    """Everything that a run leaves but times, which the model's card tells too."""
    folder = runs / "tiny"
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [
        {name: value for name, value in entry.items() if name not in ("seconds", "spent", "peak_rss_mib")}
        for entry in entries
    ]
    model = {str(path): path.read_bytes() for path in sorted((folder / "model").rglob("*.*")) if path.suffix != ".md"}
    return logged, {name.removeprefix(str(runs)): data for name, data in model.items()}


def kill_and_finish(start, runs, calls, root):
    """Die at each of `calls` in turn, then run to the end; how often it really died."""
    died = sum(run_in_child(lambda number=number: at_call(lambda: start(runs), number)) == -9 for number in calls)
    log = root / "resumed.log"
    assert run_in_child(lambda: start(runs), log) == 0, log.read_text()
    left = {path.name for path in (root / runs).rglob("*") if path.suffix in (".tmp", ".old")}
    assert not left, f"left behind: {left}"
    assert not (root / runs / "tiny.1").exists()
    return died


def check_kills(killable, tmp_path, case, seed, runs, most):
    """Finished runs of a case that equal the whole one, killed one to `most` times each."""
    start, expected, total = killable(case)
    draw = random.Random(f"{seed}-{case}")
    kills = equal = 0
    for number in range(runs):
        calls = [draw.randrange(1, total) for _ in range(draw.randint(1, most))]
        kills += kill_and_finish(start, f"killed{number}", calls, tmp_path)
        equal += outcome(tmp_path / f"killed{number}") == expected
        shutil.rmtree(tmp_path / f"killed{number}")
    return kills, equal


def test_run_that_was_killed_anywhere_ends_as_if_it_had_not_been(tmp_path, killable):
    kills, equal = check_kills(killable, tmp_path, "several sources", 0, runs=3, most=1)
    assert (kills, equal) == (3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_fifty_kills_at_random(tmp_path, killable, case, promise):
    runs = 50 // len(CASES) + 1
    kills, equal = check_kills(killable, tmp_path, case, 1, runs, most=1)
    promise("killed once, anywhere, and run again: same bytes", f"{equal}/{runs} ({case})")
    assert (kills, equal) == (runs, runs)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_twenty_runs_killed_up_to_six_times(tmp_path, killable, case, promise):
    runs = 20 // len(CASES) + 1
    kills, equal = check_kills(killable, tmp_path, case, 2, runs, most=6)
    promise("killed one to six times: same bytes", f"{equal}/{runs} after {kills} kills ({case})")
    assert equal == runs
    assert kills >= runs


def started(recipe, runs):
    """A run in the middle, two checkpoints saved, about to save the next."""
    events = train(load_recipe(recipe), runs)
    for event in events:
        if isinstance(event, StepInfo) and event.step == 6:
            return events
    raise AssertionError


def save_one(events):
    """Goes on to the step after the save."""
    while not isinstance(next(events), StepInfo):
        pass


SAVING = ("training/checkpoint.py", "io/atomic.py", "workflows/train/session.py", "shutil.py")
SAVES = {"max_steps": 9, "save_every_steps": 2, "keep_checkpoints": 1}


def check_deaths(tmp_path, write, deaths, tried):
    """Die while the third checkpoint is saved, at each of `deaths`; the checkpoints that are left are whole.

    `deaths`: (name, what a child does with the run in its hands). So many of them, evenly spread, are `tried`: the run
    goes on, and ends as if nothing had happened.
    """
    recipe = write(train=SAVES)
    list(train(load_recipe(recipe), tmp_path / "whole"))
    output, endings, chosen = tmp_path / "output", tmp_path / "endings", len(deaths) // tried

    def die_each_death():
        runs, before = tmp_path / "runs", tmp_path / "before"
        events = started(recipe, runs)
        shutil.copytree(runs, before)
        for number, (name, death) in enumerate(deaths):
            shutil.rmtree(runs)
            shutil.copytree(before, runs)
            assert run_in_child(lambda death=death: death(events)) < 0, name
            found = list_checkpoints(runs / "tiny" / "checkpoints")
            assert found, f"{name}: no checkpoint is left"
            assert not [path for path in found if verify_checkpoint(path)], (
                f"{name}: a part has the name of a checkpoint"
            )
            with endings.open("a") as file:
                file.write(f"{found[0].name} {len(found)}\n")
            if number % chosen == 0:
                shutil.copytree(runs, tmp_path / "left" / str(number))

    assert run_in_child(die_each_death, output) == 0, output.read_text()
    assert len(endings.read_text().splitlines()) == len(deaths)
    assert {"step-00000004 1", "step-00000006 1"} <= set(endings.read_text().splitlines())
    for runs in (tmp_path / "left").iterdir():
        assert run_in_child(lambda runs=runs: list(train(load_recipe(recipe), runs))) == 0
        assert outcome(runs) == outcome(tmp_path / "whole"), runs.name
    return len(deaths), len(list((tmp_path / "left").iterdir()))


def lines_of_a_save(tmp_path, write):
    recipe = write(train=SAVES)
    counted = tmp_path / "lines"

    def count():
        events = started(recipe, tmp_path / "counted")
        counted.write_text(str(at_line(lambda: save_one(events), -1, SAVING)))

    assert run_in_child(count) == 0
    return int(counted.read_text())


def dying_at_line(number):
    return f"line {number}", lambda events: at_line(lambda: save_one(events), number, SAVING)


def dying_at_byte(size):
    """Die in the middle of writing the file that grows beyond `size`."""

    def die(events):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        save_one(events)

    return f"byte {size}", die


@pytest.mark.slow
def test_death_in_the_middle_of_a_save_leaves_whole_checkpoints(tmp_path, write):
    lines = lines_of_a_save(tmp_path, write)
    deaths = [dying_at_line(number) for number in (5, lines // 3, lines // 2, lines - 4)]
    check_deaths(tmp_path, write, [*deaths, dying_at_byte(2_000), dying_at_byte(9_000)], tried=2)


@pytest.mark.slow
def test_death_at_every_line_and_in_every_write_of_a_save(tmp_path, write, promise):
    lines = lines_of_a_save(tmp_path, write)
    deaths = [dying_at_line(number) for number in range(1, lines - 2)]
    deaths += [dying_at_byte(size) for size in (1, 500, 2_000, 4_000, 6_000, 9_000, 12_000)]
    died, tried = check_deaths(tmp_path, write, deaths, tried=20)
    promise("died at every line and in every write of one save: checkpoints whole", f"{died}/{died}")
    promise("the same, gone on with: same bytes", f"{tried}/{tried}")
