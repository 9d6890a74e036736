"""Whatever breaks in a push: the right bytes or one line of error, in bounded time; the old model or the new one."""

import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from publish.test_push import commits, contents, expected, head

pytestmark = pytest.mark.slow

DEADLINE = 150
"""Seconds in which every push has ended, whatever the Hub does; the client here waits 4 s for an answer."""

REQUESTS = {
    "account": ("GET", "/whoami"),
    "branch": ("GET", "/revision/main"),
    "listing": ("GET", "/tree/"),
    "create": ("POST", "/repos/create"),
    "card check": ("POST", "/validate-yaml"),
    "preupload": ("POST", "/preupload/"),
    "lfs batch": ("POST", "/objects/batch"),
    "lfs upload": ("PUT", "/objects/"),
    "lfs verify": ("POST", "/verify"),
    "xet token": ("GET", "/xet-write-token/"),
    "xet xorb": ("POST", "/xorbs/"),
    "xet shard": ("POST", "/shards"),
    "commit": ("POST", "/commit/"),
    "verification": ("GET", "/tree/"),
}
ONCE = {
    "500": {"kind": "status", "status": 500},
    "503": {"kind": "status", "status": 503},
    "403": {"kind": "status", "status": 403},
    "429": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "reset": {"kind": "reset"},
    "reset inside": {"kind": "reset_inside_request", "after": 20},
    "lost reply": {"kind": "lost_reply"},
    "cut reply": {"kind": "cut", "after": 3},
    "flipped reply": {"kind": "flip", "after": 1},
}
FOR_EVER = {
    "500 for ever": {"kind": "status", "status": 500, "times": 1000},
    "silent for ever": {"kind": "hang", "times": 1000},
    "403 for ever": {"kind": "status", "status": 403, "times": 1000},
    "429 for an hour": {"kind": "status", "status": 429, "times": 1000, "headers": {"Retry-After": "3600"}},
}
FAULTS = ONCE | FOR_EVER


@pytest.mark.parametrize("fault", FAULTS)
def test_a_push_ends_right_or_with_one_line(server, stfit, run, fault):
    outcomes = Counter()
    for name, (method, path) in REQUESTS.items():
        server.state.repositories.clear()
        server.state.objects.clear()
        server.log.clear()
        server.faults.clear()
        if name != "create":
            server.state.create("model", "me/tiny", {"notes.md": b"old"})
        for weights in ("model.safetensors", "2_Dense/model.safetensors"):
            (run / "model" / weights).write_bytes(os.urandom(20_000))  # or neither path would upload it a second time
        old = contents(head(server)) if name != "create" else None
        how = dict(FAULTS[fault])
        ordered = server.break_(method, path, how.pop("kind"), skip=1 if name == "verification" else 0, **how)
        begun = time.monotonic()
        ended = stfit("push", run)
        seconds = time.monotonic() - begun
        struck = ordered.times < how.get("times", 1)
        case = (
            f"{fault} at {name} ({'struck' if struck else 'never asked'}): {ended.code}, {seconds:.0f} s, {ended.err}"
        )
        assert seconds < DEADLINE, case
        assert "Traceback" not in ended.err, case
        there = server.state.repositories.get(("model", "me/tiny"))
        found = {
            path: content for path, content in (contents(there.head) if there else {}).items() if path != "README.md"
        }
        new = {path: content for path, content in expected(run).items() if path != "README.md"}
        if old:
            new |= old
        made = commits(server) - (2 if old else 1) if there else 0
        assert made <= 1, case
        if ended.code == 0:
            assert found == new, case
            assert made == 1, case
        else:
            assert ended.code == 5, case
            *before, last = ended.err.strip().splitlines()
            assert last.startswith("stfit: "), case
            assert not [line for line in before if line.startswith("stfit: ")], case  # but the client's own notes
            assert found in ((old or {}), new), case
        outcomes["published" if ended.code == 0 else "one line"] += 1
        outcomes["struck"] += struck
        sys.stderr.write(case.strip() + "\n")
    sys.stderr.write(f"{fault}: {dict(outcomes)}\n")


def test_killed_at_any_request_the_hub_has_the_old_model_or_the_new_one(server, stfit, run, tmp_path):
    def prepared():
        server.state.repositories.clear()
        server.state.objects.clear()
        server.faults.clear()
        assert stfit("push", run).code == 0
        server.log.clear()

    changed = shutil.copytree(run, tmp_path / "changed" / "recipe")
    weights = bytearray((changed / "model" / "2_Dense" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "model" / "2_Dense" / "model.safetensors").write_bytes(weights)
    (changed / "model" / "1_Pooling" / "config.json").write_text("{}")
    prepared()
    old = contents(head(server))
    assert stfit("push", changed).code == 0
    new = contents(head(server))
    requests = len(server.log)
    assert old != new
    seen = Counter()
    for number in range(requests):
        prepared()
        server.break_("*", "", "hang", skip=number, times=1000)
        child = stfit.start("push", changed)
        while len(server.log) <= number and Path(f"/proc/{child}").exists():
            time.sleep(0.005)
        if len(server.log) <= number:  # what Xet has stored already is not sent again, so there are fewer
            assert stfit.end().code == 0
            break
        os.kill(child, signal.SIGKILL)
        assert stfit.end().code == -signal.SIGKILL
        server.faults.clear()
        found = contents(head(server))
        assert found in (old, new)
        seen["old" if found == old else "new"] += 1
        again = stfit("push", changed)
        assert again.code == 0, again.err
        assert contents(head(server)) == new
        assert commits(server) == 3
    sys.stderr.write(f"killed at {requests} requests: {dict(seen)}\n")
    assert seen["old"]
    assert seen["new"]
