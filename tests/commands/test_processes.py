"""Several processes train and measure what one would; one that dies takes the others with it, and no more."""

import json
import os
import platform
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import die, fork_group, run_group, send, wait

from stfit import distributed
from stfit.commands.train import train
from stfit.distributed import rank
from stfit.encoder.build import load_encoder
from stfit.errors import LockError, WorkerLostError
from stfit.events import StepInfo
from stfit.io.json_files import load_json_object
from stfit.recipe.load import load_recipe
from stfit.runtime.run_folder import RunFolder
from stfit.training import gradients
from stfit.training.gradients import embed
from stfit.workflows.report.summarize_run import summarize_run

EXACT = {"model": {"dropout": 0.0}}
CACHED = {"train": {"mini_batch_size": 1, "accumulate_steps": 2}}
SHARDED = {"train": CACHED["train"] | {"shard": True}}
CLASSES = {"data": {"format": "labeled_pair"}, "loss": "softmax"}


def logged(run):
    """metrics.jsonl without what a clock says."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in entry.items() if name not in ("seconds", "spent", "peak_rss_mib")}
        for entry in entries
    ]


def assert_near(run, expected):
    """The same lines, but for the last digits of float32."""
    for found, line in zip(logged(run), logged(expected), strict=True):
        floats = {name for name, value in line.items() if isinstance(value, float)}
        assert [found[name] for name in floats] == pytest.approx([line[name] for name in floats], rel=1e-3, abs=1e-5)
        assert found == line | {name: found[name] for name in floats}


def weights(run):
    return (run / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def write(write):
    """In float32: how processes share a batch changes its last digits, which bfloat16 does not have."""
    return lambda **sections: write(**sections | {"train": {"precision": "float32"} | sections.get("train", {})})


@pytest.fixture
def group(tmp_path):
    """Trains a recipe below `runs`/ in so many processes; gives how each ended.

    `strike(rank)` is what each does after its fifth step.
    """

    def train_in_group(processes, recipe, runs, strike=lambda rank: None, **options):
        def follow():
            for event in train(load_recipe(recipe), tmp_path / runs, **options):
                if isinstance(event, StepInfo) and event.step == 5:
                    strike(rank())

        return run_group(processes, follow, tmp_path / "output")

    return train_in_group


@pytest.mark.parametrize(
    "sections",
    [pytest.param(EXACT, id="plain", marks=pytest.mark.slow), pytest.param(EXACT | CACHED | CLASSES, id="everything")],
)
def test_two_processes_with_half_the_rows_are_one_with_all(tmp_path, write, run, group, similarity, sections):
    nothing_new = similarity | {"name": "nothing-new"}  # its texts are all embedded by then, and no process has a share
    sections = sections | {"eval": [similarity, nothing_new]}
    run(write(**sections | {"train": {"batch_size": 6} | sections.get("train", {})}), "one")
    half = write(**sections | {"train": {"batch_size": 3} | sections.get("train", {})})
    assert group(2, half, "two") == [0, 0], (tmp_path / "output").read_text()
    one, two = tmp_path / "one" / "tiny", tmp_path / "two" / "tiny"
    assert_near(two, one)
    assert "3 rows on each of 2 processes" in dict(summarize_run(RunFolder(two)).inputs)["batches"]
    texts = ["a cat on a hill", "nothing but dogs"]
    expected, found = (load_encoder(run / "model").encode(texts, normalize=True) for run in (one, two))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_best_model_that_a_run_ends_with_is_read_by_all_once_it_is_written(tmp_path, write, group, similarity):
    train = {"batch_size": 3, "max_steps": 5, "eval_every_steps": 5, "best": "scores/spearman_cosine"}
    recipe = write(**EXACT, train=train, eval=[similarity])
    assert group(2, recipe, "whole") == [0, 0], (tmp_path / "output").read_text()
    ended = group(2, recipe, "stopped", lambda rank: send(signal.SIGTERM))
    assert ended == [128 + signal.SIGTERM] * 2, (tmp_path / "output").read_text()
    assert not (tmp_path / "stopped" / "tiny" / "model").exists()
    assert group(2, recipe, "stopped") == [0, 0], (tmp_path / "output").read_text()
    folders = (RunFolder(tmp_path / runs / "tiny") for runs in ("whole", "stopped"))
    whole, stopped = (load_json_object(folder.result)["result"] for folder in folders)
    assert whole["metrics"] == stopped["metrics"]


@pytest.mark.slow
def test_two_processes_teach_adapters_what_one_teaches_them(tmp_path, write, run, group, tiny_base, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    data = {"dataset": "./rows.jsonl", "format": "triplet"}
    losses = ["mse", "teacher_cosine", "margin_mse", "distill_kl_div", "gist"]
    objectives = [{"data": data, "loss": {"type": loss, "teacher": str(tiny_base("roberta"))}} for loss in losses]
    model = {"model": {"base": str(tiny_base("bert")), "dropout": 0.0, "lora": {"rank": 2}}}
    half, whole = ({"batch_size": rows, "mini_batch_tokens": 30, "max_steps": 10} for rows in (3, 6))
    recipe = model | {"data": None, "loss": None, "objectives": objectives}
    run(write(**recipe, train=whole), "one")
    assert group(2, write(**recipe, train=half), "two") == [0, 0], (tmp_path / "output").read_text()
    assert_near(tmp_path / "two" / "tiny", tmp_path / "one" / "tiny")


@pytest.mark.slow
def test_dead_process_ends_the_others_and_the_run_goes_on_to_the_same_bytes(tmp_path, write, group):
    recipe = write(**CACHED)
    assert group(2, recipe, "whole") == [0, 0]
    for victim in (0, 1):
        ended = group(2, recipe, "killed", lambda rank, victim=victim: die() if rank == victim else None)
        assert (ended[victim], ended[1 - victim]) == (-signal.SIGKILL, WorkerLostError.exit_code)
        assert group(2, recipe, "killed", resume=True) == [0, 0], (tmp_path / "output").read_text()
        assert weights(tmp_path / "killed" / "tiny") == weights(tmp_path / "whole" / "tiny")
        assert logged(tmp_path / "killed" / "tiny") == logged(tmp_path / "whole" / "tiny")
        (tmp_path / "killed" / "tiny").rename(tmp_path / f"killed {victim}")


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_process_that_no_longer_answers_is_named_and_the_run_goes_on(tmp_path, write, group, monkeypatch, victim):
    """Stopped, it closes no connection, as when its machine loses its network."""
    monkeypatch.setattr(distributed, "SECONDS_TO_REPORT", 2.0)
    recipe = write(**CACHED)
    assert group(2, recipe, "whole") == [0, 0]

    def follow():
        overrides = ["train.timeout_minutes=0.05"]
        for event in train(load_recipe(recipe, overrides), tmp_path / "silent"):
            if isinstance(event, StepInfo) and event.step == 5 and rank() == victim:
                send(signal.SIGSTOP)

    children = fork_group(2, follow, tmp_path / "output")
    assert wait(children[1 - victim]) == WorkerLostError.exit_code
    os.kill(children[victim], signal.SIGKILL)
    assert wait(children[victim]) == -signal.SIGKILL
    message = f"process {victim} on {platform.node()} has not answered for 0.05 minutes (train.timeout_minutes)"
    assert message in (tmp_path / "output").read_text()
    assert group(2, recipe, "silent", resume=True) == [0, 0], (tmp_path / "output").read_text()
    assert weights(tmp_path / "silent" / "tiny") == weights(tmp_path / "whole" / "tiny")


@pytest.mark.slow
def test_sharded_run_is_one_without_and_goes_on_to_the_same_bytes_after_a_process_died(
    tmp_path, write, run, group, similarity
):
    sections = EXACT | CLASSES | {"eval": [similarity]}
    run(write(**sections, train=CACHED["train"] | {"batch_size": 6}), "one")
    recipe = write(**sections, train=SHARDED["train"] | {"batch_size": 3})
    assert group(2, recipe, "whole") == [0, 0], (tmp_path / "output").read_text()
    assert_near(tmp_path / "whole" / "tiny", tmp_path / "one" / "tiny")
    assert group(2, recipe, "killed", lambda rank: die() if rank == 1 else None) == [
        WorkerLostError.exit_code,
        -signal.SIGKILL,
    ]
    assert group(2, recipe, "killed", resume=True) == [0, 0], (tmp_path / "output").read_text()
    assert weights(tmp_path / "killed" / "tiny") == weights(tmp_path / "whole" / "tiny")
    assert logged(tmp_path / "killed" / "tiny") == logged(tmp_path / "whole" / "tiny")


def test_one_process_has_nothing_to_share_its_model_with_and_says_so(tmp_path, write, run, caplog):
    for shard in (False, True):
        run(write(train={"shard": shard}), f"shard {shard}")
        assert ("train.shard has no effect with a single process" in caplog.text) is shard
    assert weights(tmp_path / "shard True" / "tiny") == weights(tmp_path / "shard False" / "tiny")


@pytest.mark.slow
def test_process_that_dies_within_a_step_of_a_sharded_run_is_missed(tmp_path, write, group, monkeypatch):
    calls = []

    def embed_or_die(*arguments):
        calls.append(arguments)
        return die() if rank() == 1 and len(calls) == 7 else embed(*arguments)

    monkeypatch.setattr(gradients, "embed", embed_or_die)
    assert group(2, write(**SHARDED), "killed") == [WorkerLostError.exit_code, -signal.SIGKILL]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_sharded_run_goes_on_with_another_number_of_processes(tmp_path, write, group, processes):
    recipe = write(**EXACT | CLASSES | SHARDED)
    assert group(2, recipe, "two") == [0, 0]
    assert group(2, recipe, "moved", lambda rank: die()) == [-9, -9]
    assert group(processes, recipe, "moved") == [0] * processes, (tmp_path / "output").read_text()
    assert_near(tmp_path / "moved" / "tiny", tmp_path / "two" / "tiny")


@pytest.mark.slow
def test_sharded_run_keeps_the_best_and_ends_early_as_one_without(tmp_path, write, run, group, similarity):
    best = {"best": "scores/spearman_cosine", "early_stopping": {"patience": 1}, "eval_every_steps": 1}
    sections = EXACT | {"eval": [similarity]}
    run(write(**sections, train=best | {"batch_size": 6}), "one")
    assert group(2, write(**sections, train=best | {"batch_size": 3, "shard": True}), "two") == [0, 0]
    assert_near(tmp_path / "two" / "tiny", tmp_path / "one" / "tiny")


@pytest.mark.slow
def test_signal_to_one_process_ends_all_after_the_same_step(tmp_path, write, group):
    recipe = write()
    assert group(2, recipe, "whole") == [0, 0]
    assert group(2, recipe, "struck", lambda rank: send(signal.SIGTERM) if rank == 1 else None) == [143, 143]
    assert "step 5 is saved" in (tmp_path / "output").read_text()
    assert group(2, recipe, "struck") == [0, 0]
    assert weights(tmp_path / "struck" / "tiny") == weights(tmp_path / "whole" / "tiny")


@pytest.mark.slow
def test_other_number_of_processes_goes_on_with_the_same_batches_and_is_said(tmp_path, write, run, group, caplog):
    recipe = write(**EXACT)
    assert group(2, recipe, "two") == [0, 0]
    assert group(2, recipe, "moved", lambda rank: die()) == [-9, -9]
    with pytest.raises(LockError, match="processes: 2 -> 1"):
        run(recipe, "moved", resume=True)
    run(recipe, "moved")
    assert "changed since the checkpoint: processes: 2 -> 1" in caplog.text
    assert_near(tmp_path / "moved" / "tiny", tmp_path / "two" / "tiny")


def start(*arguments, **environment):
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "stfit", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_of(launcher):
    """Ids of the processes that a launcher has started, by their rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            facts = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
            if int(facts["PPid"]) == launcher:
                environment = (folder / "environ").read_bytes().decode().split("\0")
                own = dict(line.split("=", 1) for line in environment if "=" in line)
                if "RANK" in own:
                    found[int(own["RANK"])] = int(folder.name)
        except (OSError, ValueError):
            continue
    return found


LONG = {"max_steps": 4000, "save_every_steps": 40, "log_every_steps": 1000}


def kill_at(launcher, line, victim):
    """Once this line is said, kill the process of this rank, or the launcher; all are gone within a minute.

    Gives standard output, and what was said after the line.
    """
    assert any(line in said for said in launcher.stderr)
    workers = workers_of(launcher.pid)
    assert set(workers) == {0, 1}
    alive = {os.pidfd_open(worker) for worker in workers.values()}
    os.kill(launcher.pid if victim == "launcher" else workers[victim], signal.SIGKILL)
    told = launcher.communicate(timeout=60)
    while alive:
        ended = select.select(alive, [], [], 60)[0]
        assert ended, f"an orphan goes on after {line}"
        alive -= set(ended)
    return told


def assert_said_once(launcher, victim, out, err):
    message = f"process {victim} was killed by SIGKILL (out of memory?); run the same command again to resume"
    assert launcher.returncode == 9
    assert err.count("stfit: ") == 1
    assert f"stfit: {message}" in err
    assert "Traceback" not in err
    assert json.loads(out)["error"] == {"class": "ResourceError", "message": message, "exit_code": 9}


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1, "launcher"])
def test_no_orphan_is_left_of_a_command_that_lost_a_process(tmp_path, write, victim):
    recipe = write(train=LONG)
    launcher = start("train", str(recipe), "--runs", str(tmp_path / "runs"), "--processes", "2", "--json")
    out, err = kill_at(launcher, "step 200/4000", victim)
    if victim != "launcher":
        assert_said_once(launcher, victim, out, err)


@pytest.fixture
def many(tmp_path):
    """A dataset of 80,000 texts, which take a tiny model some seconds."""
    with (tmp_path / "many.jsonl").open("w") as file:
        for i in range(40_000):
            row = {"sentence1": f"animal {i} {'very ' * 8}", "sentence2": f"{i} animals {'too ' * 8}", "score": i / 4e4}
            file.write(json.dumps(row) + "\n")
    return "./many.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1, "launcher"])
def test_process_that_dies_while_all_measure_ends_the_others_at_once(tmp_path, write, similarity, many, victim):
    measured = similarity | {"dataset": many, "when": ["during", "end"]}
    recipe = write(eval=[measured], train={"eval_every_steps": 3})
    launcher = start("train", str(recipe), "--runs", str(tmp_path / "runs"), "--processes", "2", "--json")
    out, err = kill_at(launcher, "step 3/6", victim)
    assert "scores/spearman_cosine" not in err
    if victim != "launcher":
        assert_said_once(launcher, victim, out, err)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1, "launcher"])
def test_process_that_dies_while_the_first_asks_a_teacher_ends_the_others_at_once(
    tmp_path, write, tiny_base, many, victim
):
    student = {"layers": [{"type": "dense", "out_features": 32}]}
    data = {"dataset": many, "format": "text", "columns": {"text": ["sentence1", "sentence2"]}}
    epoch = {"max_steps": None, "epochs": 1}  # a shorter run asks about fewer texts
    recipe = write(model=student, data=data, loss={"type": "mse", "teacher": str(tiny_base("bert"))}, train=epoch)
    arguments = ["train", str(recipe), "--runs", str(tmp_path / "runs"), "--processes", "2", "--json"]
    launcher = start(*arguments, HF_ASSETS_CACHE=str(tmp_path / "assets"))
    out, err = kill_at(launcher, "teacher: 4096 of 80000 done", victim)
    assert "80000 of 80000 done" not in err
    if victim != "launcher":
        assert_said_once(launcher, victim, out, err)


@pytest.mark.slow
def test_command_line_starts_torchrun_says_things_once_and_passes_the_exit_code(tmp_path, write, similarity):
    recipe = write(eval=[similarity])
    launcher = start("train", str(recipe), "--runs", str(tmp_path / "runs"), "--processes", "2", "--json")
    out, err = launcher.communicate()
    assert launcher.returncode == 0, err
    assert json.loads(out)["steps"] == 6
    assert err.count("step 6/6") == 1
    lock = json.loads((tmp_path / "runs" / "tiny" / "stfit.lock").read_text())
    assert (lock["processes"], lock["threads"]) == (2, 1)

    broken = write(data={"columns": {"anchor": "nowhere"}})
    launcher = start("train", str(broken), "--runs", str(tmp_path / "runs"), "--processes", "2")
    _, err = launcher.communicate()
    assert launcher.returncode == 3, err
    assert err.count("there is no column `nowhere`") == 1


@pytest.mark.slow
def test_process_takes_less_memory_for_a_part_of_the_model(tmp_path, write, promise):
    base = {"type": "scratch", "hidden_size": 768, "num_layers": 6, "num_heads": 12}
    peak_mib = {}
    for shard in (False, True):
        recipe = write(model={"base": base}, train={"max_steps": 3, "shard": shard})
        launcher = start("train", str(recipe), "--runs", str(tmp_path / f"{shard}"), "--processes", "2", "--json")
        out, err = launcher.communicate()
        assert launcher.returncode == 0, err
        peak_mib[shard] = json.loads(out)["peak_rss_mib"]
    promise("6 x 768 in two processes: peak of one", f"{peak_mib[True]:.0f} MiB, {peak_mib[False]:.0f} not sharded")
    weights_mib = sum(path.stat().st_size for path in (tmp_path / "True").rglob("model/model.safetensors")) / 2**20
    # Of 16 bytes a weight a process keeps 8, and 4 more while it saves them all: half of what is left is noise.
    assert peak_mib[True] < peak_mib[False] - weights_mib / 2


@pytest.mark.slow
def test_torchrun_around_the_command_is_recognised(tmp_path, write):
    def torchrun(*arguments):
        runner = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "stfit",
            *arguments,
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(runner, capture_output=True, text=True, env=environment)

    recipe = str(write())
    done = torchrun("train", recipe, "--runs", str(tmp_path / "runs"), "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 6
    refused = torchrun("train", recipe, "--runs", str(tmp_path / "runs"), "--processes", "3")
    assert refused.returncode == 1  # torchrun's own
    assert "torchrun has already started 2; remove the option" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_torchrun_restarts_a_run_that_lost_a_process_and_ends_with_the_same_bytes(tmp_path, write, victim):
    recipe = str(write(train={"max_steps": 200, "save_every_steps": 20, "log_every_steps": 50}))

    def torchrun(runs):
        restarts = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *restarts, "-m", "stfit", "train", recipe, "--runs", runs],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    whole = torchrun(tmp_path / "whole")
    assert whole.communicate()[1] is not None
    assert whole.returncode == 0
    broken = torchrun(tmp_path / "broken")
    assert any("step 50/200" in line for line in broken.stderr)
    os.kill(workers_of(broken.pid)[victim], signal.SIGKILL)
    said = broken.communicate()[1]
    assert broken.returncode == 0, said
    assert "resum" in said
    assert weights(tmp_path / "broken" / "tiny") == weights(tmp_path / "whole" / "tiny")
    assert logged(tmp_path / "broken" / "tiny") == logged(tmp_path / "whole" / "tiny")
