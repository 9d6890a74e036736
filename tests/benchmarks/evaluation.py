"""`stfit eval` beside sentence-transformers' own evaluators: the same model, sets and metrics; time A B A B.

    STFIT_SHARED=... python tests/benchmarks/evaluation.py MODEL [--rounds 2]

MODEL is a folder, such as the one that $STFIT_SHARED/models/get_all_minilm.sh unpacks. Each side is one process, from
its start to its last metric. The rival has no evaluator for classes, so those sets are measured, and not timed.
"""

import argparse
import csv
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

PAIRED = ["stsb/spearman_cosine", "cranfield/ndcg@10", "cranfield/map@100", "allnli/accuracy_cosine"]
CLASSES = ["trec", "banking77"]


def recipe(model: str, data: Path, evaluators: list[dict]) -> str:
    training = {"dataset": str(data / "stsb"), "format": "labeled_pair", "columns": {"label": "score"}}
    return json.dumps({"model": {"base": model}, "data": training, "loss": "cosent", "eval": evaluators})


def paired_sets(data: Path) -> list[dict]:
    stsb = {"type": "similarity", "dataset": str(data / "stsb"), "columns": {"label": "score"}}
    cranfield = {"type": "retrieval", "dataset": str(data / "cranfield")}
    return [stsb, cranfield, {"type": "triplet", "name": "allnli", "dataset": str(data / "allnli_triplets")}]


def class_sets(data: Path) -> list[dict]:
    columns = {"trec": {"label": "coarse_label"}, "banking77": {}}
    return [{"type": "classification", "dataset": str(data / name), "columns": columns[name]} for name in CLASSES]


def run_stfit(model: str, data: Path, evaluators: list[dict]) -> tuple[dict, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(recipe(model, data, evaluators))
        file.flush()
        return timed([sys.executable, "-m", "stfit", "eval", model, "--recipe", file.name, "--json"])


def timed(command: list[str]) -> tuple[dict, float]:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)["metrics"], seconds


def rows_of(path: Path) -> list[dict]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def measure_st(model: str, data: Path) -> dict:
    """The same metrics by sentence-transformers, under the same names."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import evaluation

    st_model = SentenceTransformer(model, device="cpu")
    pairs = rows_of(data / "stsb/test.jsonl.gz")
    columns = [[row[name] for row in pairs] for name in ("sentence1", "sentence2", "score")]
    similarity = evaluation.EmbeddingSimilarityEvaluator(*columns, write_csv=False)(st_model)
    corpus = {
        row["_id"]: f"{row['title']} {row['text']}".strip() for row in rows_of(data / "cranfield/corpus.jsonl.gz")
    }
    queries = {row["_id"]: row["text"] for row in rows_of(data / "cranfield/queries.jsonl.gz")}
    relevant: dict[str, set[str]] = {}
    with (data / "cranfield/qrels/test.tsv").open() as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            if int(row["score"]) > 0:
                relevant.setdefault(row["query-id"], set()).add(row["corpus-id"])
    retrieval = evaluation.InformationRetrievalEvaluator(queries, corpus, relevant, write_csv=False)(st_model)
    triplets = rows_of(data / "allnli_triplets/test.jsonl.gz")
    columns = [[row[name] for row in triplets] for name in ("anchor", "positive", "negative")]
    triplet = evaluation.TripletEvaluator(*columns, write_csv=False)(st_model)
    return {
        "stsb/spearman_cosine": similarity["spearman_cosine"],
        "cranfield/ndcg@10": retrieval["cosine_ndcg@10"],
        "cranfield/map@100": retrieval["cosine_map@100"],
        "allnli/accuracy_cosine": triplet["cosine_accuracy"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sentence-transformers", action="store_true", help="run as the sentence-transformers process")
    options = parser.parse_args()
    data = Path(os.environ["STFIT_SHARED"]) / "data"
    if options.sentence_transformers:
        print(json.dumps({"metrics": {name: float(value) for name, value in measure_st(options.model, data).items()}}))
        return
    seconds: dict[str, list[float]] = {"stfit": [], "sentence-transformers": []}
    for _ in range(options.rounds):
        ours, took = run_stfit(options.model, data, paired_sets(data))
        seconds["stfit"].append(took)
        theirs, took = timed([sys.executable, __file__, options.model, "--sentence-transformers"])
        seconds["sentence-transformers"].append(took)
    print(f"{date.today()}, {os.cpu_count()} CPUs\n\n| metric | stfit | sentence-transformers |\n| --- | --: | --: |")
    for name in PAIRED:
        print(f"| {name} | {ours[name]:.4f} | {theirs[name]:.4f} |")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"| seconds | {medians['stfit']:.1f} | {medians['sentence-transformers']:.1f} |")
    worst = max(abs(ours[name] - theirs[name]) for name in PAIRED)
    print(f"\nlargest difference {worst:.1e}; all seconds {json.dumps(seconds)}")


if __name__ == "__main__":
    main()
