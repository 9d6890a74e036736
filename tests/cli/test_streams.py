"""Whatever becomes of stdout and stderr: no traceback, no lost work, and the exit code that Unix tools have."""

import json
import os
import subprocess
import sys

import pytest

from stfit.cli.console import print_json
from stfit.cli.streams import ERRORS, prepare_streams
from stfit.cli.tables import gain_with_arrow

STFIT = f"{sys.executable} -P -m stfit"


def shell(line, **env):
    ended = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, errors="replace", env={**os.environ, **env}
    )
    assert "Traceback" not in ended.stderr
    assert "bug in stfit" not in ended.stderr
    return ended


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (f"{STFIT} schema > /dev/full", 9, "can't be printed: No space left on device"),
        (f"{STFIT} schema --json > /dev/full", 9, "can't be printed: No space left on device"),
        (f"{STFIT} --help > /dev/full", 9, "can't be printed"),
        (f"{STFIT} train no.yaml --json > /dev/full", 2, "no.yaml"),
        (f"{STFIT} schema >&-", 0, ""),
        (f"{STFIT} train no.yaml --json >&-", 2, "no.yaml"),
        (f"{STFIT} train no.yaml 2> /dev/full", 2, ""),
        (f"{STFIT} train no.yaml 2>&-", 2, ""),
        (f"{STFIT} schema | true; exit ${{PIPESTATUS[0]}}", 141, ""),
        (f"{STFIT} schema --json | true; exit ${{PIPESTATUS[0]}}", 141, ""),
    ],
)
def test_streams_that_are_full_closed_or_left_end_as_unix_tools_do(line, code, said):
    ended = shell(line)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert said or not ended.stderr


@pytest.mark.slow
def test_a_training_whose_streams_are_full_is_whole(folder):
    assert shell(f"{STFIT} train recipe.yaml > /dev/full 2> /dev/full").returncode == 9
    assert (folder / "runs" / "recipe" / "result.json").is_file()
    assert (folder / "runs" / "recipe" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_stream_of_few_characters_prints_every_line(encoding):
    prepare_streams()
    line = f"{gain_with_arrow(0.1)} {gain_with_arrow(-0.1)} … é 東 \udc80"
    printed = line.encode(encoding, ERRORS).decode(encoding)
    assert printed.startswith("+0.1000 ^ -0.1000 v ")
    assert "\\u6771 \\udc80" in printed


def test_json_is_json_in_every_encoding_and_of_every_text(capsys):
    sys.stdout.reconfigure(encoding="ascii")
    value = {"text": "é 東 \udc80 ↑"}
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value
