"""Whatever goes wrong in a download, it ends in the right bytes or in one sentence, within a deadline.

Every case has a repository of its own, and all run at once in one process, as the client's settings are those of its
process. `pytest -rP` (or a failure) prints the table.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from hub.server import Server

DEADLINE = 90
"""Seconds; the client is told to take 2 s of silence for an end."""

FAULTS = {
    "500": {"kind": "status", "status": 500},
    "503": {"kind": "status", "status": 503},
    "403": {"kind": "status", "status": 403},
    "429, wait 1 s": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "429, wait 1 h": {"kind": "status", "status": 429, "headers": {"Retry-After": "3600"}},
    "silence": {"kind": "hang"},
    "reset": {"kind": "reset"},
    "cut inside": {"kind": "cut", "after": 200},
    "reset inside": {"kind": "reset_inside_reply", "after": 200},
    "bit flipped": {"kind": "flip", "after": 300},
}
PLACES = {  # (method, path) of a case with this id, whose large file has this sha256
    "commit": ("GET", "/api/models/{id}$"),
    "listing": ("GET", "/api/models/{id}/tree/"),
    "head": ("HEAD", "/{id}/resolve/"),
    "small file": ("GET", "/{id}/resolve/[^/]*/config.json"),
    "large file": ("GET", "/objects/{sha}"),
    "xet token": ("GET", "/api/models/{id}/xet-read-token"),
    "xet plan": ("GET", "/xet/v1/reconstructions/{sha}"),
    "xet chunks": ("GET", "/xet/xorbs/{sha}"),
}
ONLY_XET = {"xet token", "xet plan", "xet chunks"}
ONLY_PLAIN = {"large file"}

FETCH_ALL = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from stfit.errors import StfitError
from stfit.hub import fetch, find_commit

def load(id):
    begin = time.monotonic()
    try:
        folder = fetch("model", id, find_commit("model", id, None), ["*.json", "*.safetensors"])
        result = {"folder": str(folder)}
    except StfitError as error:
        result = {"exit_code": error.exit_code, "message": str(error)}
    except BaseException as error:
        result = {"bug": repr(error)}
    return id, result | {"seconds": time.monotonic() - begin}

with ThreadPoolExecutor(12) as pool:
    print(json.dumps(dict(pool.map(load, sys.argv[1:]))))
"""


@dataclass(frozen=True)
class Case:
    place: str
    fault: str
    times: int
    xet: bool

    def __str__(self) -> str:
        often = "once" if self.times == 1 else "always"
        return f"{'xet' if self.xet else 'plain':5}  {self.place:10}  {self.fault:13}  {often:6}"


def all_cases() -> Iterator[Case]:
    for xet in (True, False):
        for place in PLACES:
            if place in (ONLY_PLAIN if xet else ONLY_XET):
                continue
            for fault in FAULTS:
                bodiless = place == "head" and fault in ("cut inside", "reset inside", "bit flipped")
                if not bodiless:
                    yield from (Case(place, fault, times, xet) for times in (1, 1000))


QUICK = [
    Case("commit", "500", 1, False),
    Case("commit", "429, wait 1 h", 1000, False),
    Case("listing", "reset", 1, False),
    Case("head", "403", 1000, False),
    Case("small file", "bit flipped", 1, False),
    Case("large file", "bit flipped", 1, False),
    Case("large file", "bit flipped", 1000, False),
    Case("large file", "reset inside", 1, False),
    Case("large file", "500", 1, False),
    Case("large file", "silence", 1, False),
]


def run_cases(hub: Server, home: Path, cases: list[Case]) -> list[tuple[Case, dict]]:
    """Each case's outcome, as the process that fetches saw it, and whether the bytes are right."""
    files = {}
    for number, case in enumerate(cases):
        id = f"me/case-{number:03}"
        files[id] = {
            "config.json": json.dumps({"case": number, "padding": "x" * 1000}).encode(),
            "model.safetensors": Random(number).randbytes(100_000),
        }
        hub.state.create("model", id, files[id])
        method, path = PLACES[case.place]
        sha = sha256(files[id]["model.safetensors"]).hexdigest()
        hub.break_(method, path.format(id=id, sha=sha), times=case.times, **FAULTS[case.fault])
    env = hub.env(home, "hf_me", xet=any(case.xet for case in cases))
    env |= {"HF_HUB_DOWNLOAD_TIMEOUT": "2", "HF_HUB_ETAG_TIMEOUT": "2"}
    ended = subprocess.run([sys.executable, "-c", FETCH_ALL, *files], env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    outcomes = json.loads(ended.stdout)
    for id, outcome in outcomes.items():
        if folder := outcome.get("folder"):
            outcome["right"] = all((Path(folder) / path).read_bytes() == content for path, content in files[id].items())
    return list(zip(cases, outcomes.values(), strict=True))


def table(outcomes: list[tuple[Case, dict]]) -> str:
    lines = [
        f"{case}  {outcome['seconds']:5.1f} s  "
        + ("right bytes" if outcome.get("right") else outcome.get("message") or str(outcome))
        for case, outcome in outcomes
    ]
    right = sum(bool(outcome.get("right")) for _, outcome in outcomes)
    return "\n".join([*lines, f"{len(lines)} cases: {right} right bytes, {len(lines) - right} one sentence", ""])


def assert_bytes_or_error(outcomes: list[tuple[Case, dict]]) -> None:
    sys.stdout.write(table(outcomes))
    for case, outcome in outcomes:
        assert "bug" not in outcome, case
        assert outcome.get("right") or outcome.get("exit_code") == 5, case
        assert outcome["seconds"] < DEADLINE, case
        assert "\n" not in outcome.get("message", ""), case
        if case.times == 1 and case.fault not in ("403", "429, wait 1 h"):
            assert outcome.get("right"), case


def test_a_broken_download_ends_in_the_right_bytes_or_in_one_sentence(hub, tmp_path):
    assert_bytes_or_error(run_cases(hub, tmp_path, QUICK))


@pytest.mark.slow
@pytest.mark.parametrize("xet", [True, False])
def test_every_fault_of_every_request_of_a_download(hub, tmp_path, xet):
    assert_bytes_or_error(run_cases(hub, tmp_path, [case for case in all_cases() if case.xet == xet]))
