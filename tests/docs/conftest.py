import csv
import json
from pathlib import Path

import pytest
from hub.repository import files_in
from hub.server import Server
from hub.worker import Worker

README = Path(__file__).parents[2] / "README.md"
TOPICS = ["guitar", "stage", "crowd", "cat", "castle", "sand", "sea", "parents", "rain", "bread", "letters", "children"]
"""Words that the base knows."""
ROWS = [{"question": f"a {topic}", "answer": f"{topic} {topic} near the {topic}"} for topic in TOPICS]
SCORED = [
    {"sentence1": f"the {one}", "sentence2": f"a {other} near the {other}", "score": i % 6 / 5}
    for i, (one, other) in enumerate(zip(TOPICS, TOPICS[3:] + TOPICS[:3], strict=True))
]


def lines(rows: list[dict]) -> str:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="session")
def hub_of_readme(tiny_base):
    """A Hub with what the README names, in small: a base of random weights, pairs with scores."""
    with Server() as server:
        server.account("hf_me", "me")
        scored = lines(SCORED).encode()
        names = {"train.jsonl": scored, "validation.jsonl": scored, "test.jsonl": scored}
        server.state.create("model", "sentence-transformers/all-MiniLM-L6-v2", files_in(tiny_base("bert")))
        server.state.create("dataset", "sentence-transformers/stsb", names)
        yield server


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """A folder as the README's reader has it: rows, texts, the recipe, a BEIR folder."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "questions.jsonl").write_text(lines(ROWS))
    (folder / "texts.txt").write_text("".join(f"{row['answer']}\n" for row in ROWS))
    with (folder / "pairs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["anchor", "positive"], *([f"{i} a {t}", f"{i} b {t}"] for i, t in enumerate(TOPICS))]
        )
    (folder / "docs").mkdir()
    for row in ROWS:
        (folder / "docs" / f"{row['question']}.md").write_text(f"# On {row['question']}\n\n{row['answer']}\n")
    beir = folder / "scifact"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_text(lines([{"_id": f"d{i}", "title": t, "text": t} for i, t in enumerate(TOPICS)]))
    (beir / "queries.jsonl").write_text(lines([{"_id": f"q{i}", "text": f"on {t}"} for i, t in enumerate(TOPICS)]))
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(len(TOPICS)))
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


@pytest.fixture(scope="session")
def stfit(hub_of_readme, tmp_path_factory):
    """Runs a command line as a client of that Hub."""
    modules = "stfit.commands.train", "stfit.commands.mine", "matplotlib.backends.backend_svg"
    folder = tmp_path_factory.mktemp("clients") / "worker"
    worker = Worker(hub_of_readme, folder, False, *modules, OMP_NUM_THREADS="1")
    yield worker
    worker.close()
