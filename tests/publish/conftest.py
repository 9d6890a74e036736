import json
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from hub.server import Server
from hub.worker import Worker

from stfit.commands.train import train
from stfit.recipe.load import load_recipe

WORDS = ["rain", "bread", "train", "cat", "star", "song", "chess", "tea", "apple", "river", "lamp", "fish"]
RECIPE = """\
model:
  base: {type: scratch, hidden_size: 16, num_layers: 1, num_heads: 2}
  max_seq_length: 16
  layers: [{type: dense, out_features: 12}, normalize]
  prompts: {query: "ask: ", document: "say: "}
data: {dataset: ./secret-project/rows.jsonl, format: positive_pair}
loss: {type: multiple_negatives_ranking, matryoshka_dims: [12, 6]}
train: {max_steps: 6, batch_size: 4, learning_rate: 0.01, log_every_steps: 2, device: cpu}
eval:
  - {type: similarity, name: scores, dataset: ./secret-project/rows.jsonl, split: train}
push: {repo: me/tiny, license: apache-2.0, language: [en]}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model; its recipe lies two folders above, as recipe.yaml."""
    folder = tmp_path_factory.mktemp("somebodys-home")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "secret-project").mkdir()
    rows = [
        {
            "anchor": f"about {word}",
            "positive": f"all of {word}s",
            "sentence1": f"a {word}",
            "sentence2": f"{next_word}s",
        }
        | {"label": index % 5 / 4}
        for index, (word, next_word) in enumerate(zip(WORDS, WORDS[1:] + WORDS[:1], strict=True))
    ]
    (folder / "secret-project" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # whether it could be pushed is not asked
        list(train(load_recipe(folder / "recipe.yaml"), folder / "runs"))
    return folder / "runs" / "recipe"


@pytest.fixture(scope="session")
def one_hub() -> Iterator[Server]:
    """A Hub for all the tests of a process; see `server`."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session", params=["xet", "lfs"])
def one_worker(request, one_hub, tmp_path_factory) -> Iterator[Worker]:
    """A process of clients for each upload path."""
    folder = tmp_path_factory.mktemp("worker") / request.param
    worker = Worker(one_hub, folder, request.param == "xet", HF_HUB_DOWNLOAD_TIMEOUT="4")
    yield worker
    worker.close()


@pytest.fixture
def server(one_hub) -> Server:
    """The Hub, with nothing in it but two accounts: `me`, of the organisation `team`, and `guest`."""
    one_hub.state.repositories.clear()
    one_hub.state.objects.clear()
    one_hub.faults.clear()
    one_hub.log.clear()
    one_hub.account("hf_me", "me", orgs=("team",))
    one_hub.account("hf_guest", "guest")
    one_hub.account("hf_reader", "me", role="read")
    return one_hub


@pytest.fixture
def stfit(server, one_worker) -> Worker:
    """Runs a command line of stfit as a client of `server`, as `me`."""
    return one_worker


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(trained, tmp_path / "runs" / "recipe")
