"""Whatever goes wrong in a download, it ends in the right bytes or in one sentence, within a deadline.

Every case is a `stfit fetch` of its own, of a repository of its own. `pytest -rP` (or a failure) prints the table.
"""

from collections.abc import Iterator
from random import Random

import pytest
from hub.cases import Case, all_cases, place_orders, require_one_line, show
from hub.repository import as_file
from hub.server import Server
from hub.worker import Job, Worker

DEADLINE = 100
"""Seconds; the client is told to take 3 s of silence for an end."""

PLAIN = {
    "commit": ("GET", "/api/models/[^/]+/[^/]+$"),
    "listing": ("GET", "/tree/"),
    "head": ("HEAD", "/resolve/"),
    "small file": ("GET", "/resolve/[^/]*/config.json"),
    "large file": ("GET", "/objects/"),
}
XET = {name: place for name, place in PLAIN.items() if name != "large file"} | {
    "xet token": ("GET", "/xet-read-token"),
    "xet plan": ("GET", "/xet/v1/reconstructions/"),
    "xet chunks": ("GET", "/xet/xorbs/"),
}
QUICK = {
    ("commit", "500", False),
    ("commit", "429, wait 1 h", True),
    ("listing", "reset", False),
    ("head", "403", True),
    ("small file", "bit flipped", False),
    ("large file", "bit flipped", False),
    ("large file", "bit flipped", True),
    ("large file", "reset inside reply", False),
    ("large file", "500", False),
    ("large file", "silence", False),
}


@pytest.fixture(params=["xet", "lfs"])
def client(request, hub, tmp_path) -> Iterator[Worker]:
    """Clients of an empty Hub, on each path."""
    worker = Worker(hub, tmp_path / "worker", request.param == "xet", HF_HUB_DOWNLOAD_TIMEOUT="3")
    yield worker
    worker.close()


def put_model(hub: Server, name: str, size: int) -> dict[str, bytes]:
    """A repository that nobody else has a file of."""
    random = Random(name)
    files = {"config.json": random.randbytes(500).hex().encode(), "model.safetensors": random.randbytes(size)}
    hub.state.create("model", f"{name}/base", files)
    return files


def fetches(client: Worker, names: list[str]) -> list[Job]:
    """Command lines that fetch these models."""
    (client.folder / "rows.jsonl").write_text('{"anchor": "a", "positive": "b"}\n' * 4)
    recipe = "model: {base: %s/base}\ndata: {dataset: ./rows.jsonl, format: positive_pair}\n"
    recipe += "loss: multiple_negatives_ranking\n"
    for name in names:
        (client.folder / f"{name}.yaml").write_text(recipe % name)
    return [Job(("fetch", f"{name}.yaml"), {"HF_TOKEN": f"hf_{name}"}) for name in names]


def fetched(client: Worker, name: str) -> dict[str, bytes]:
    """The files of a model in the cache."""
    snapshots = client.home.glob(f"hub/models--{name}--base/snapshots/*/*")
    return {path.name: path.read_bytes() for path in snapshots if path.name != ".gitattributes"}


def run_cases(hub: Server, client: Worker, cases: list[Case]) -> None:
    files = {case.name: put_model(hub, case.name, 100_000) for case in cases}
    shas = {name: [as_file(*file).sha256 for file in own.items()] for name, own in files.items()}
    place_orders(hub, cases, shas)
    ends = client.run(fetches(client, [case.name for case in cases]))
    show(f"download {client.path}", cases, ends)
    for case, ended in zip(cases, ends, strict=True):
        assert ended.seconds < DEADLINE, (case, ended)
        assert case.struck, case
        if ended.code == 0:
            assert fetched(client, case.name) == files[case.name], case
        else:
            require_one_line(case, ended)
            assert not case.passes, (case, ended)


@pytest.mark.slow
@pytest.mark.parametrize("client", ["lfs"], indirect=True)
def test_a_broken_download_ends_in_the_right_bytes_or_in_one_sentence(hub, client):
    chosen = [case for case in all_cases(PLAIN) if (case.place, case.fault, case.always) in QUICK]
    assert len(chosen) == len(QUICK)
    run_cases(hub, client, chosen)


@pytest.mark.slow
def test_every_fault_of_every_request_of_a_download(hub, client):
    run_cases(hub, client, list(all_cases(XET if client.path == "xet" else PLAIN)))


@pytest.mark.slow
def test_a_slow_hub_is_waited_for(hub, client):
    """What comes steadily has no deadline: 500 kB at 25 kB a second, where 18 s in which nothing moves are an end."""
    files = put_model(hub, "slow", 500_000)
    hub.account("hf_slow", "slow")
    hub.break_("GET", "/(objects|xet/xorbs)/", "trickle", after=5_000, times=1000)
    (ended,) = client.run(fetches(client, ["slow"]))
    assert ended.code == 0, ended.err
    assert ended.seconds > 19
    assert fetched(client, "slow") == files
