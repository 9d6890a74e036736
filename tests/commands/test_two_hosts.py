"""A run across two hosts: two network namespaces that only a cable of two ends joins."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from processes import run_group

from stfit.commands.train import train
from stfit.recipe.load import load_recipe

pytestmark = pytest.mark.slow
LONG = {"max_steps": 200, "save_every_steps": 20, "mini_batch_size": 1}


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture
def hosts():
    """The names of two hosts, and the ends of the cable between them, with the addresses 10.83.0.1 and 10.83.0.2."""
    if shutil.which("ip") is None:
        pytest.skip("there is no ip: apt-get install iproute2")
    names = [f"stfit-{os.getpid()}-{end}" for end in "ab"]
    cable = [f"st{os.getpid()}{end}" for end in "ab"]
    try:
        refusals = [made.stderr.strip() for made in (ip("netns", "add", name) for name in names) if made.returncode]
        if refusals:
            pytest.skip(f"network namespaces can't be made here: {refusals[0]}")
        assert ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1]).returncode == 0
        for number, (name, end) in enumerate(zip(names, cable, strict=True), start=1):
            assert ip("link", "set", end, "netns", name).returncode == 0
            assert ip("-n", name, "addr", "add", f"10.83.0.{number}/24", "dev", end).returncode == 0
            for device in (end, "lo"):
                assert ip("-n", name, "link", "set", device, "up").returncode == 0
        yield list(zip(names, cable, strict=True))
    finally:
        for name in names:
            ip("netns", "delete", name)


@pytest.fixture
def start(hosts, tmp_path):
    """Starts a verb on both hosts, each in its folder; gives torchrun on each."""

    def start_on_both(recipe, *runs):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        first = ["--master-addr", "10.83.0.1", "--master-port", "29511"]
        command = ["-m", "stfit", "train", str(recipe), "--runs"]
        return [
            subprocess.Popen(
                [*("ip", "netns", "exec", name), *torchrun, "--node-rank", str(rank), *first, *command, str(folder)],
                env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": end},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, ((name, end), folder) in enumerate(zip(hosts, runs, strict=True))
        ]

    started = []

    def start_and_remember(recipe, *runs):
        started.extend(both := start_on_both(recipe, *runs))
        return both

    yield start_and_remember
    for process in started:
        with process:
            if process.poll() is None:
                process.terminate()


def weights(runs):
    return (runs / "tiny" / "model" / "model.safetensors").read_bytes()


def test_two_hosts_train_what_two_processes_of_one_train(tmp_path, write, start):
    recipe = write(train=LONG)
    ended = run_group(2, lambda: list(train(load_recipe(recipe), tmp_path / "here")), tmp_path / "output")
    assert ended == [0, 0], (tmp_path / "output").read_text()
    first, second = start(recipe, *[tmp_path / "there"] * 2)
    said = [host.communicate(timeout=300)[1] for host in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert weights(tmp_path / "there") == weights(tmp_path / "here")
    assert "step 200/200" in said[0]
    assert "step" not in said[1]  # only the first process prints


@pytest.mark.parametrize("victim", [0, 1])
def test_run_goes_on_to_the_same_bytes_after_a_host_died(tmp_path, write, hosts, start, victim):
    recipe = write(train=LONG)
    assert [host.wait(300) for host in start(recipe, *[tmp_path / "whole"] * 2)] == [0, 0]
    both = start(recipe, *[tmp_path / "killed"] * 2)
    assert any(int(found[1]) >= 25 for line in both[0].stderr if (found := re.search(r"step (\d+)/", line)))
    children = subprocess.run(["pgrep", "-P", str(both[victim].pid)], capture_output=True, text=True, check=True)
    (worker,) = map(int, children.stdout.split())
    os.kill(worker, signal.SIGKILL)
    os.kill(both[victim].pid, signal.SIGKILL)
    _, said = both[1 - victim].communicate(timeout=300)
    assert both[1 - victim].returncode != 0
    assert said.count("another process of this run was lost") >= 1, said
    assert [ip("netns", "pids", name).stdout for name, _ in hosts] == ["", ""]  # no orphan
    assert [host.wait(300) for host in start(recipe, *[tmp_path / "killed"] * 2)] == [0, 0]
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


@pytest.mark.parametrize("victim", [0, 1])
def test_pulled_cable_ends_both_hosts_and_one_goes_on_alone(tmp_path, write, hosts, start, victim):
    recipe = write(train=LONG | {"timeout_minutes": 0.1})
    both = start(recipe, *[tmp_path / "cut"] * 2)
    assert any(int(found[1]) >= 25 for line in both[0].stderr if (found := re.search(r"step (\d+)/", line)))
    name, end = hosts[victim]
    assert ip("-n", name, "link", "set", end, "down").returncode == 0
    said = [host.communicate(timeout=300)[1] for host in both]
    assert all(host.returncode for host in both)
    assert any(re.search(r"process \d on \S+ has not answered for 0.1 minutes", text) for text in said), said
    (going_on,) = train_alone(recipe, tmp_path / "cut")
    assert "going on from step" in going_on or "resum" in going_on, going_on
    assert (tmp_path / "cut" / "tiny" / "result.json").is_file()


def train_alone(recipe, runs):
    """What one process says that goes on with a run."""
    command = [sys.executable, "-m", "stfit", "train", str(recipe), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return [done.stderr]


def test_hosts_that_share_no_folder_are_told_so(tmp_path, write, start):
    both = start(write(train=LONG), tmp_path / "first", tmp_path / "second")
    said = [host.communicate(timeout=300)[1] for host in both]
    assert all(host.returncode for host in both)
    assert "All hosts must see the same folder" in said[1]
    assert str(tmp_path / "second" / "tiny") in said[1]
