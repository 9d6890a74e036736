"""Runs stfit's command lines in forks of a process that knows a test Hub, so that each costs no imports.

The Hub's clients read their environment when they are imported: hence a process of its own, for each upload path.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.server import Server

SERVE = """
import importlib, json, os, signal, sys, time
import huggingface_hub, huggingface_hub.hf_api, huggingface_hub.file_download, huggingface_hub._commit_api
import huggingface_hub._snapshot_download
import stfit.commands.fetch, stfit.commands.push
from stfit.cli.main import main

for name in sys.argv[1:]:
    importlib.import_module(name)

AT_ONCE = 12

def start(job):
    child = os.fork()
    if child:
        return child
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv = ["stfit", *job["arguments"]]
    signal.alarm(600)  # what hangs is killed, and seen by its exit code
    try:
        main()
    except SystemExit as end:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(end.code or 0)
    finally:
        os._exit(1)

for line in sys.stdin:
    waiting, running = list(enumerate(json.loads(line))), {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, job = waiting.pop(0)
            child = start(job)
            running[child] = number, time.monotonic()
            print(json.dumps({"number": number, "pid": child}), flush=True)
        child, status = os.wait()
        number, begun = running.pop(child)
        ended = {"number": number, "code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - begun}
        print(json.dumps(ended), flush=True)
"""


@dataclass
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


@dataclass
class Job:
    """A command line, with what is particular in its environment."""

    arguments: tuple[str | Path, ...]
    env: dict[str, str]
    cwd: Path | None = None


class Worker:
    """One process of the test Hub's clients; its command lines need not import `modules` any more."""

    def __init__(self, hub: Server, folder: Path, xet: bool, *modules: str, **env: str) -> None:
        self.hub, self.folder, self.home, self.path = hub, folder, folder / "home", "xet" if xet else "lfs"
        folder.mkdir()
        environment = hub.env(self.home, "hf_me", xet=xet) | env
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *modules],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str | Path, cwd: Path | None = None, **env: str) -> Ended:
        return self.run([Job(arguments, env, cwd)])[0]

    def run(self, jobs: list[Job], started: Callable[[int, int], None] = lambda number, pid: None) -> list[Ended]:
        """Run command lines, several at a time; `started` is told the number and the process of each."""
        self.send(jobs)
        results: dict[int, Ended] = {}
        while len(results) < len(jobs):
            message = self.read()
            if "pid" in message:
                started(message["number"], message["pid"])
            else:
                results[message["number"]] = self.ended(message)
        return [results[number] for number in range(len(jobs))]

    def start(self, *arguments: str | Path, cwd: Path | None = None, **env: str) -> int:
        """Begin a command line; its process id."""
        self.send([Job(arguments, env, cwd)])
        return self.read()["pid"]

    def end(self) -> Ended:
        """Wait for its end."""
        return self.ended(self.read())

    def send(self, jobs: list[Job]) -> None:
        lines = [
            {"arguments": list(map(str, job.arguments)), "cwd": str(job.cwd or self.folder), "env": job.env}
            | {name: str(self.folder / f"{name}-{number}") for name in ("out", "err")}
            for number, job in enumerate(jobs)
        ]
        assert self.process.stdin
        self.process.stdin.write(json.dumps(lines) + "\n")
        self.process.stdin.flush()

    def ended(self, message: dict[str, Any]) -> Ended:
        out, err = ((self.folder / f"{name}-{message['number']}").read_text() for name in ("out", "err"))
        return Ended(message["code"], out, err, message["seconds"])

    def read(self) -> dict[str, Any]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
