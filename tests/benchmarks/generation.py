"""Training on pairs that were generated from documents alone, measured on test sets that were not generated.

    STFIT_SHARED=... python tests/benchmarks/generation.py RETRIEVER NAME=FOLDER ... [--runs runs/generation]

Cranfield's abstracts, searched for half of its queries; Banking77's questions without their labels, classified by
their nearest neighbors. Beside the methods of `stfit generate`: SimCSE on the same texts and, as the ceiling, training
on real pairs (the other half of Cranfield's queries) or labels. RETRIEVER makes the round trips. What was measured is
kept in generation.jsonl beside this file, so that the same command goes on where it was stopped: delete the lines that
are to be measured anew.
"""

import argparse
import gzip
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from results_page import half_width
from runs import find_shared, kept_lines, read_lines, run_json, where_and_when

LINES = Path(__file__).with_name("generation.jsonl")
SEEDS = (1, 2, 3)
METHODS = ("title", "crop", "sentence")
TEXTS, MEASURED = 3000, 1000
"""Rows of Banking77."""
RANKS = 10
"""Of the round trip."""
TRAIN = {"batch_size": 64, "learning_rate": 2e-5, "warmup_ratio": 0.1, "epochs": 1}
MAX_SEQ_LENGTH = 64
IN_BATCH = "multiple_negatives_ranking"


def prepare(shared: Path, folder: Path) -> dict[str, dict]:
    """The documents, the evaluators and the real data of both sets."""
    folder.mkdir(parents=True, exist_ok=True)
    known, measured = (read_lines(shared / f"data/banking77/{name}.jsonl.gz") for name in ("train", "test"))
    banking = folder / "banking77"
    banking.mkdir(exist_ok=True)
    known = known[:: max(1, len(known) // TEXTS)][:TEXTS]
    write_rows(banking / "train.jsonl", known)
    write_rows(banking / "test.jsonl", measured[:: len(measured) // MEASURED][:MEASURED])
    write_rows(folder / "questions.jsonl", [{"text": row["text"]} for row in known])
    classified = {"type": "classification", "name": "test", "dataset": str(banking), "split": "test"}
    labels = {"dataset": str(banking), "format": "labeled_text", "columns": {"text": "text", "label": "label"}}
    cranfield = split_queries(shared / "data/cranfield", folder / "cranfield")
    return {
        "Cranfield": {
            "documents": cranfield / "corpus.jsonl",
            "methods": METHODS,
            "evaluator": {"type": "retrieval", "name": "test", "dataset": str(cranfield), "split": "test"},
            "metric": "test/ndcg@10",
            "real": ({"dataset": str(cranfield), "split": "train", "format": "positive_pair"}, IN_BATCH),
        },
        "Banking77": {
            "documents": folder / "questions.jsonl",
            "methods": METHODS[1:],
            "evaluator": classified | {"columns": {"text": "text", "label": "label"}},
            "metric": "test/knn_accuracy",
            "real": (labels, "batch_hard_soft_margin_triplet"),
        },
    }


def split_queries(whole: Path, folder: Path) -> Path:
    """A BEIR folder in which every other query is of the split train, and the others of test."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name in ("corpus", "queries"):
        (folder / f"{name}.jsonl").write_bytes(gzip.decompress((whole / f"{name}.jsonl.gz").read_bytes()))
    head, *judgments = (whole / "qrels" / "test.tsv").read_text().splitlines()
    queries = list(dict.fromkeys(line.split("\t")[0] for line in judgments))
    for split, chosen in (("train", set(queries[::2])), ("test", set(queries[1::2]))):
        lines = [head, *(line for line in judgments if line.split("\t")[0] in chosen)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def variants(task: dict, retriever: str, seed: int, folder: Path) -> Iterator[tuple[str, dict, str]]:
    """Name, data and loss; pairs are generated when they are asked for."""
    documents = str(task["documents"])
    for method in task["methods"]:
        for name, filters in (
            (method, []),
            (f"{method}, round trip", ["--round-trip", RANKS, "--retriever", retriever]),
        ):
            output = folder / f"{name.replace(', ', '-').replace(' ', '-')}.jsonl"

            def data(output: Path = output, method: str = method, filters: list = filters) -> dict:
                arguments = [documents, "-o", output, "--method", method, "--seed", seed, *filters, "--json"]
                run_json([sys.executable, "-m", "stfit", "generate", *map(str, arguments)])
                return {"dataset": str(output), "format": "positive_pair"}

            yield name, data, IN_BATCH
    yield "SimCSE", lambda: {"dataset": documents, "format": "text", "columns": {"text": "text"}}, IN_BATCH
    yield "real data", lambda: task["real"][0], task["real"][1]


def measure(model: str, task: dict, folder: Path) -> float:
    path = folder / "eval.yaml"
    recipe = {"model": {"base": model, "max_seq_length": MAX_SEQ_LENGTH}, "eval": [task["evaluator"]]}
    path.write_text(json.dumps(recipe | {"data": task["real"][0], "loss": task["real"][1]}))
    return run_json([sys.executable, "-m", "stfit", "eval", model, "--recipe", str(path), "--json"])["metrics"][
        task["metric"]
    ]


def train(base: str, data: dict, loss: str, seed: int, folder: Path) -> dict:
    sampler = {"sampler": "group_by_label"} if data["format"] == "labeled_text" else {}
    model = {"base": base, "max_seq_length": MAX_SEQ_LENGTH}
    recipe = {"name": "run", "seed": seed, "model": model, "data": data, "loss": loss, "train": TRAIN | sampler}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return run_json([sys.executable, "-m", "stfit", "train", str(path), "--fresh", "--json", "--runs", str(folder)])


def print_table(lines: list[dict]) -> None:
    names = list(dict.fromkeys(line["variant"] for line in lines))
    columns = list(dict.fromkeys((line["base"], line["task"]) for line in lines))
    print(f"| trained on | {' | '.join(f'{task}, {base}' for base, task in columns)} |")
    print(f"| --- |{' --: |' * len(columns)}")
    for name in names:
        cells = []
        for base, task in columns:
            found = [
                line["value"] for line in lines if (line["base"], line["task"], line["variant"]) == (base, task, name)
            ]
            spread = f" ± {half_width(found):.4f}" if len(found) == len(SEEDS) else ""
            cells.append(f"{mean(found):.4f}{spread}" if found else "-")
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("retriever")
    parser.add_argument("bases", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("runs/generation"))
    options = parser.parse_args()
    runs = options.runs.resolve()
    tasks = prepare(find_shared(), runs / "data")
    lines = kept_lines(LINES)

    def keep(line: dict) -> None:
        line |= where_and_when()
        lines.append(line)
        with LINES.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    folder = runs / "work"
    for seed in (None, *SEEDS):
        for word in options.bases:
            name, _, base = word.partition("=")
            for task_name, task in tasks.items():
                done = {
                    line["variant"]
                    for line in lines
                    if (line["base"], line["task"], line["seed"]) == (name, task_name, seed)
                }
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                common = {"base": name, "task": task_name, "seed": seed}
                if seed is None:
                    if "as it is" not in done:
                        keep(common | {"variant": "as it is", "value": measure(base, task, folder)})
                    continue
                for variant, data, loss in variants(task, options.retriever, seed, folder):
                    if variant not in done:
                        run = train(base, data(), loss, seed, folder)
                        keep(common | {"variant": variant, "value": measure(run["model"], task, folder)})
    print_table(lines)


if __name__ == "__main__":
    main()
