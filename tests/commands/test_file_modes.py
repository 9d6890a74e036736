"""Every file that a verb writes has the mode of any new file: servers run under another user."""

import os
import stat
from importlib.util import find_spec
from pathlib import Path

import pytest

from stfit.commands.encode import encode
from stfit.commands.export import export
from stfit.data.source import Source
from stfit.options import EncodeOptions
from stfit.workflows.encode.text_windows import Inputs


@pytest.fixture(params=["027", "002"])
def new_file_mode(request):
    """The mode of a new file under some umask."""
    before = os.umask(int(request.param, 8))
    yield 0o666 & ~int(request.param, 8)
    os.umask(before)


@pytest.mark.slow
def test_files_of_runs_outputs_and_exports_obey_the_umask(write, run, tmp_path, new_file_mode) -> None:
    run(write(train={"max_steps": 2, "save_every_steps": 1}))
    model, inputs = str(tmp_path / "runs" / "tiny"), Inputs(Source(dataset=str(tmp_path / "rows.jsonl")), "text")
    for name in ("out.npy", "out.safetensors", "out.parquet", "parts"):
        list(encode(model, inputs, Path(tmp_path / name), EncodeOptions(), device="cpu"))
    if find_spec("onnx"):
        export(model, "onnx", tmp_path / "exported", True, None)
    given = {tmp_path / "rows.jsonl", tmp_path / "tiny.yaml"}
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path not in given]
    modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in files}
    assert any("checkpoints" in path for path in modes)
    assert {path: oct(mode) for path, mode in modes.items() if mode != new_file_mode} == {}
