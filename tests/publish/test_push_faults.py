"""Whatever breaks in a push: the right bytes or one line of error, in bounded time; the old model or the new one."""

import os
import shutil
import signal
import sys
from collections import Counter
from hashlib import sha256
from threading import Thread

import numpy as np
import pytest
from hub.cases import all_cases, place_orders, require_one_line, show
from hub.faults import Fault, of_account
from hub.worker import Job
from publish.test_push import contents, expected
from safetensors.numpy import load_file, save_file

from stfit.io.json_files import load_json_object, seal_json
from stfit.runtime.run_folder import hash_model

pytestmark = pytest.mark.slow

DEADLINE = 120
"""Seconds in which every push has ended, whatever the Hub does; the client here waits 4 s for an answer."""

PLACES = {
    "account": ("GET", "/whoami"),
    "branch": ("GET", "/revision/main"),
    "listing": ("GET", "/tree/"),
    "create": ("POST", "/repos/create"),
    "card check": ("POST", "/validate-yaml"),
    "preupload": ("POST", "/preupload/"),
    "commit": ("POST", "/commit/"),
    "verification": ("GET", "/tree/"),
}
LFS = PLACES | {
    "lfs batch": ("POST", "/objects/batch"),
    "lfs upload": ("PUT", "/objects/"),
    "lfs verify": ("POST", "/lfs-verify"),
}
XET = PLACES | {
    "xet token": ("GET", "/xet-write-token/"),
    "xet xorb": ("POST", "/xorbs/"),
    "xet shard": ("POST", "/shards"),
}
WEIGHTS = ("model.safetensors", "2_Dense/model.safetensors")
OLD = {"notes.md": b"old"}


def draw_weights(run, *names):
    """Random weights, with the digests that the run keeps of their files."""
    random = np.random.default_rng()
    for name in names:
        weights = load_file(run / "model" / name)
        save_file({key: random.random(old.shape, np.float32) for key, old in weights.items()}, run / "model" / name)
    result = load_json_object(run / "result.json") | {"weights": hash_model(run / "model")}
    (run / "result.json").write_text(seal_json(result))


def own_run(run, folder, name):
    """A copy of the run with weights that no other case uploads; and their sha256."""
    copy = shutil.copytree(run, folder / name / "recipe")
    draw_weights(copy, *WEIGHTS)
    return copy, [sha256((copy / "model" / weights).read_bytes()).hexdigest() for weights in WEIGHTS]


def pushes(runs):
    """Command lines that push each run as its own account."""
    return [Job(("push", run, "--repo", f"{name}/tiny"), {"HF_TOKEN": f"hf_{name}"}) for name, run in runs.items()]


def without_card(files):
    return {path: content for path, content in files.items() if path != "README.md"}


def test_a_push_ends_right_or_with_one_line(server, stfit, run, tmp_path):
    cases = list(all_cases(XET if stfit.path == "xet" else LFS))
    runs, objects = {}, {}
    for case in cases:
        runs[case.name], objects[case.name] = own_run(run, tmp_path, case.name)
        if case.place != "create":
            server.state.create("model", f"{case.name}/tiny", OLD)
        case.order.skip = 1 if case.place == "verification" else 0
    place_orders(server, cases, objects)
    ends = stfit.run(pushes(runs))
    show(f"push {stfit.path}", cases, ends)
    for case, ended in zip(cases, ends, strict=True):
        assert ended.seconds < DEADLINE, (case, ended)
        assert case.struck, case
        old = {} if case.place == "create" else OLD
        new = old | without_card(expected(runs[case.name]))
        repository = server.state.repositories.get(("model", f"{case.name}/tiny"))
        published = without_card(contents(repository.head)) if repository else {}
        commits = len(repository.head.history()) - len(old) - 1 if repository else 0
        assert commits <= 1, (case, ended)
        if ended.code == 0:
            assert (published, commits) == (new, 1), (case, ended)
        else:
            require_one_line(case, ended)
            assert published in (old, new), (case, ended)
            assert not case.passes, (case, ended)


def test_killed_at_any_request_the_hub_has_the_old_model_or_the_new_one(server, stfit, run, tmp_path):
    """One push for each of its requests, killed when the Hub has got that one; then the same again, to its end."""
    requests = 30
    names = [f"killed-{number:02}" for number in range(requests)]
    runs, objects = {}, {}
    for name in names:
        server.account(f"hf_{name}", name)
        runs[name], objects[name] = own_run(run, tmp_path, name)
    assert {ended.code for ended in stfit.run(pushes(runs))} == {0}
    repositories = {name: server.state.repositories["model", f"{name}/tiny"] for name in names}
    old = {name: contents(repository.head) for name, repository in repositories.items()}

    orders = []
    for number, (name, folder) in enumerate(runs.items()):
        (folder / "model" / "1_Pooling" / "config.json").write_text("{}")
        draw_weights(folder, "2_Dense/model.safetensors")
        sent = sha256((folder / "model" / "2_Dense" / "model.safetensors").read_bytes()).hexdigest()
        orders.append(Fault("*", "", "hang", skip=number, times=1000, client=f"{of_account(name)}|{sent}"))
    server.faults.extend(orders)

    def kill_when_struck(number, pid):
        def wait_and_kill():
            if orders[number].struck.wait(120):
                os.kill(pid, signal.SIGKILL)

        Thread(target=wait_and_kill, daemon=True).start()

    ends = stfit.run(pushes(runs), kill_when_struck)
    published = {name: contents(repository.head) for name, repository in repositories.items()}
    server.faults.clear()
    again = stfit.run(pushes(runs))

    seen = Counter()
    for name, first, second in zip(names, ends, again, strict=True):
        assert second.code == 0, (name, second)
        new = contents(repositories[name].head)
        assert without_card(new) == without_card(expected(runs[name]))
        assert len(repositories[name].head.history()) == 3  # the Hub's own, and two pushes
        assert published[name] in (old[name], new), name
        assert first.code in (0, -signal.SIGKILL), (name, first)
        whole = "old" if published[name] == old[name] else "new"
        seen["ended before" if first.code == 0 else f"killed, Hub has the {whole} model"] += 1
    sys.stdout.write(f"push {stfit.path}, killed at each of its requests: {dict(seen)}\n")
    assert seen["ended before"]  # so that there was no further request to be killed at
    assert seen["killed, Hub has the old model"] > 5
    assert seen["killed, Hub has the new model"]
