"""Runs stfit's command lines in forks of a process that knows a test Hub, so that each costs no imports.

The Hub's clients read their environment when they are imported: hence a process of its own, for each upload path.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.server import Server

SERVE = """
import json, os, sys
import huggingface_hub, huggingface_hub.hf_api, huggingface_hub.file_download, huggingface_hub._commit_api
import stfit.commands.push
from stfit.cli.app import main

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(job["env"])
        os.chdir(job["cwd"])
        sys.argv = ["stfit", *job["arguments"]]
        try:
            main()
        except SystemExit as end:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(end.code or 0)
        finally:
            os._exit(1)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


class Worker:
    """One process of the test Hub's clients."""

    def __init__(self, hub: Server, folder: Path, xet: bool, **env: str) -> None:
        self.hub, self.folder = hub, folder
        folder.mkdir()
        given = hub.env(folder / "home", "hf_me", xet=xet) | env
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE], env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *arguments: str | Path, cwd: Path | None = None, **env: str) -> int:
        """Begin a command line; its process id."""
        job = {"arguments": list(map(str, arguments)), "cwd": str(cwd or self.folder), "env": env}
        job |= {name: str(self.folder / name) for name in ("out", "err")}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.read())

    def end(self) -> Ended:
        """Wait for its end."""
        code = int(self.read())
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        return Ended(code, out, err)

    def __call__(self, *arguments: str | Path, cwd: Path | None = None, **env: str) -> Ended:
        self.start(*arguments, cwd=cwd, **env)
        return self.end()

    def read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
