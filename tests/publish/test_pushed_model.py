"""What was pushed is what others load, and the token went nowhere else."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hub.repository import files_in

from stfit.encoder.build import load_encoder

CANARY = "hf_canary"

LOAD = """
import json, sys
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("me/tiny", device="cpu")
texts = json.load(sys.stdin)
print(json.dumps(model.encode(texts, show_progress_bar=False).tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
def test_sentence_transformers_loads_the_pushed_model_with_equal_embeddings(
    server, stfit, run, sentences, tmp_path, xet
):
    pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")
    assert stfit("push", run, "--private").code == 0
    env = server.env(tmp_path / "home", "hf_me", xet=xet)
    encoded = subprocess.run(
        [sys.executable, "-c", LOAD], input=json.dumps(sentences), env=env, capture_output=True, text=True, check=False
    )
    assert encoded.returncode == 0, encoded.stderr
    got = np.array(json.loads(encoded.stdout.splitlines()[-1]), dtype=np.float32)
    np.testing.assert_allclose(got, load_encoder(run / "model").encode(sentences), atol=1e-5)


def arguments_below(pid: int | str) -> Iterator[str]:
    """Command lines of a process and all that it started, as far as they are there."""
    with suppress(OSError):
        yield Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        for children in Path("/proc").glob(f"{pid}/task/*/children"):
            for child in children.read_text().split():
                yield from arguments_below(child)


@pytest.mark.slow
@pytest.mark.parametrize("failing", [None, "POST /commit/", "GET /whoami", "POST /preupload/"])
def test_token_is_in_no_log_file_card_argument_or_foreign_request(hub, trained, tmp_path, failing):
    """Train, eval and push in processes of their own, with everything that talks turned on."""
    hub.account(CANARY, "me")
    home = trained.parents[1]
    folder = tmp_path / "work"
    (folder / "secret-project").mkdir(parents=True)
    for name in ("recipe.yaml", "secret-project/rows.jsonl"):
        (folder / name).write_bytes((home / name).read_bytes())
    env = hub.env(tmp_path / "home", CANARY) | {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "OMP_NUM_THREADS": "1"}
    output, arguments = "", ""
    if failing:
        method, path = failing.split()
        hub.break_(method, path, "status", status=403, times=1000)
    for command in (
        ["train", "recipe.yaml"],
        ["eval", "runs/recipe"],
        ["push", "runs/recipe"],
        ["push", "runs/recipe", "--json"],
    ):
        with (tmp_path / "output").open("wb") as out:
            line = [sys.executable, "-m", "stfit", *command, "--debug"]
            process = subprocess.Popen(line, env=env, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
            while process.poll() is None:
                arguments += "".join(arguments_below(process.pid))
                time.sleep(0.05)
        output += (tmp_path / "output").read_text(errors="replace")
    assert "stfit" in arguments
    assert ("Traceback" in output) == bool(failing)
    assert CANARY not in output
    assert CANARY not in arguments
    assert not [name for name, content in files_in(folder).items() if CANARY.encode() in content]
    assert any(request.token == CANARY for request in hub.log)
    for request in hub.log:
        assert request.host.startswith("127.0.0.1") or CANARY not in f"{request.path}{request.headers}"
        assert CANARY.encode() not in request.body
    for repository in hub.state.repositories.values():
        assert not any(CANARY.encode() in file.content for file in repository.files())
