"""Each task page is a story from raw data to a served model: all that it says is done, in order, on real rows."""

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest
from docs.conftest import README, lines
from generation.chat_server import running
from hub.repository import files_in
from hub.server import Server
from hub.worker import Worker

GUIDES = README.parent / "recipes" / "guides"
STORIES = ("retrieval", "intents", "multilingual", "documents")
BLOCK = re.compile(r"```(yaml|sh|python)\n(.*?)```", re.DOTALL)
ROWS = 30
SPLITS = (("train", "train"), ("dev", "test"))
"""Of a story, and of the data that it is told with."""


def read(path: Path) -> list[dict]:
    with gzip.open(path, "rt") as rows:
        return [json.loads(row) for row in rows]


def write_searchable(shared: Path, folder: Path) -> None:
    """Cranfield, with short documents, and the judgments of a third of the queries as the split `dev`."""
    data = shared / "data" / "cranfield"
    (folder / "fiqa" / "qrels").mkdir(parents=True)
    head, *judged = (data / "qrels" / "test.tsv").read_text().splitlines()
    queries = list(dict.fromkeys(line.split("\t")[0] for line in judged))[: ROWS // 2]
    judged = [line for line in judged if line.split("\t")[0] in queries]
    of_judgments = {line.split("\t")[1] for line in judged}
    corpus = [row for row in read(data / "corpus.jsonl.gz") if row["_id"] in of_judgments]
    corpus = [row | {"text": " ".join(row["text"].split()[:30])} for row in corpus]
    (folder / "fiqa" / "corpus.jsonl").write_text(lines(corpus))
    (folder / "fiqa" / "queries.jsonl").write_text(lines(read(data / "queries.jsonl.gz")))
    for split, third in (("train", {1, 2}), ("dev", {0})):
        kept = [line for line in judged if queries.index(line.split("\t")[0]) % 3 in third]
        (folder / "fiqa" / "qrels" / f"{split}.tsv").write_text("\n".join([head, *kept]) + "\n")


def write_intents(shared: Path, folder: Path) -> None:
    """The first ten classes of Banking77."""
    (folder / "intents").mkdir()
    for split, name in SPLITS:
        rows = [row for row in read(shared / "data" / "banking77" / f"{name}.jsonl.gz") if row["label"] < 10]
        kept = [row for label in range(10) for row in [row for row in rows if row["label"] == label][: ROWS // 10]]
        (folder / "intents" / f"{split}.jsonl").write_text(lines(kept))
    names = json.loads((shared / "data" / "banking77" / "labels.json").read_text())
    (folder / "intents" / "labels.json").write_text(json.dumps(names))


def write_sentences(shared: Path, folder: Path) -> None:
    (folder / "sentences").mkdir()
    for split, name in SPLITS:
        rows = read(shared / "data" / "tatoeba_en_de" / f"{name}.jsonl.gz")[:ROWS]
        (folder / "sentences" / f"{split}.jsonl").write_text(lines(rows))
    (folder / "texts.txt").write_text("".join(f"{row['english']}\n" for row in rows))


def write_documents(shared: Path, folder: Path) -> None:
    (folder / "docs").mkdir()
    for row in read(shared / "data" / "cranfield" / "corpus.jsonl.gz")[:ROWS]:
        (folder / "docs" / f"{row['_id']}.md").write_text(f"# {row['title']}\n\n{row['text']}\n")


DATA = {
    "retrieval": write_searchable,
    "intents": write_intents,
    "multilingual": write_sentences,
    "documents": write_documents,
}
LANGUAGE_MODEL = "http://localhost:8000/v1"
NEEDED = {"--to onnx": "onnxruntime"}
"""Part of a command -> the package of an extra that it needs."""


@pytest.fixture(scope="module")
def stfit(minilm, tmp_path_factory):
    """Runs a command line as a client of a Hub where the bases of the stories are plain MiniLM."""
    with Server() as server:
        server.account("hf_me", "me")
        for name in ("sentence-transformers/all-MiniLM-L6-v2", "FacebookAI/xlm-roberta-base"):
            server.state.create("model", name, files_in(minilm))
        worker = Worker(server, tmp_path_factory.mktemp("clients") / "worker", False, OMP_NUM_THREADS="1")
        yield worker
        worker.close()


@pytest.fixture
def language_model():
    """The address of a server that asks about the first words of each passage."""
    with running() as chat:
        chat.answer = lambda body: json.dumps(["what of " + " ".join(body["messages"][0]["content"].split()[-9:-4])])
        yield chat.address


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES)
def test_everything_that_a_story_says_can_be_done(story, stfit, shared, tmp_path, monkeypatch, language_model):
    DATA[story](shared, tmp_path)
    for kind, block in BLOCK.findall((GUIDES / f"{story}.md").read_text(encoding="utf-8")):
        if kind == "yaml":
            name = re.match(r"# (\S+\.yaml)\n", block)[1]
            (tmp_path / name).write_text(block)
        elif kind == "python":
            monkeypatch.chdir(tmp_path)
            exec(compile(block, story, "exec"), {})
        else:
            for line in filter(str.strip, block.splitlines()):
                _, *arguments = shlex.split(line.replace(LANGUAGE_MODEL, language_model), comments=True)
                if all(part not in line or _is_there(package) for part, package in NEEDED.items()):
                    ended = stfit(*arguments, cwd=tmp_path)
                    # So few rows need not pass a gate.
                    assert ended.code in ((0, 7) if arguments[0] == "eval" else (0,)), f"{line}\n{ended.err}"


def _is_there(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None
