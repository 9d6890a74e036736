"""The forecast of `stfit check` against the peak memory of `stfit train`, for recipes of many shapes.

    STFIT_SHARED=... python tests/benchmarks/memory.py [--only stsb,cached] [--steps 8]

Prints a row of the table in recipes/guides/performance.md for each recipe, and exits with 1 if a peak is outside.
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
from pathlib import Path

from runs import MODEL, find_shared, run_json

PAIR = {"format": "positive_pair", "columns": {"anchor": "anchor", "positive": "positive"}}
TRIPLET = {"format": "triplet", "columns": {"anchor": "anchor", "positive": "positive", "negative": "negative"}}
SCORED = {"format": "labeled_pair", "columns": {"sentence1": "sentence1", "sentence2": "sentence2", "label": "score"}}
TINY = {"type": "scratch", "hidden_size": 32, "num_layers": 2}


def recombine(shared: Path, path: Path, rows: int, words: int) -> str:
    """Pairs of texts that are made of `words` words of two questions each."""
    with gzip.open(shared / "data/quora_duplicates/train.jsonl.gz", "rt") as lines:
        questions = [row["question1"].split() for row in map(json.loads, lines)]
    draw = random.Random(1)
    with path.open("w") as out:
        for _ in range(rows):
            texts = [" ".join(draw.choice(questions)[:words] + draw.choice(questions)[-words:]) for _ in range(2)]
            out.write(json.dumps(dict(zip(("anchor", "positive"), texts, strict=True))) + "\n")
    return str(path)


def recipes(shared: Path, folder: Path) -> dict[str, dict]:
    data, base = shared / "data", {"base": str(shared / MODEL)}
    stsb = {"type": "similarity", "dataset": str(data / "stsb"), "split": "validation", "columns": {"label": "score"}}
    cranfield = {"type": "retrieval", "dataset": str(data / "cranfield"), "split": "test"}
    triplets = {"dataset": str(data / "allnli_triplets"), "split": "train"} | TRIPLET
    in_batch = {"data": triplets, "loss": "multiple_negatives_ranking", "eval": [stsb | {"limit": 300}]}

    def pairs(rows: int, words: int) -> dict:
        return {"dataset": recombine(shared, folder / f"{rows}.jsonl", rows, words)} | PAIR

    return {
        "stsb": {"model": base, "data": {"dataset": str(data / "stsb")} | SCORED, "loss": "cosent", "eval": [stsb]},
        "triplets, batch 128": {"model": base, "train": {"batch_size": 128}} | in_batch,
        "gradient caching, batch 512": {"model": base, "train": {"batch_size": 512, "mini_batch_size": 32}} | in_batch,
        "lora": {"model": base | {"lora": {}}, "train": {"batch_size": 64}} | in_batch,
        "four of six layers frozen": {
            "model": base,
            "train": {"batch_size": 64, "freeze": ["backbone.embeddings.*", "backbone.encoder.layer.[0-3].*"]},
        }
        | in_batch,
        "padded": {"model": base | {"attention": "padded"}, "train": {"batch_size": 64}} | in_batch,
        "cranfield, long texts": {
            "model": base | {"max_seq_length": 256},
            "data": {"dataset": str(data / "cranfield"), "split": "test", "format": "positive_pair"},
            "loss": "multiple_negatives_ranking",
            "eval": [cranfield],
        },
        "static": {"model": {"base": {"type": "static"}}, "train": {"batch_size": 256}} | in_batch,
        "bag of words": {
            "model": {"base": {"type": "bag_of_words"}, "layers": [{"type": "dense", "out_features": 256}]},
            "train": {"batch_size": 64},
        }
        | in_batch,
        "scratch": {"model": {"base": {"type": "scratch"}}, "train": {"batch_size": 64}} | in_batch,
        "200,000 rows": {"model": {"base": TINY}} | in_batch | {"data": pairs(200_000, 6), "eval": []},
        "1,000,000 short rows": {"model": {"base": TINY}} | in_batch | {"data": pairs(1_000_000, 2), "eval": []},
    }


def measure(recipe: dict, steps: int, folder: Path) -> tuple[list[int], float]:
    """The forecast, and the peak, in MiB."""
    own = {"max_steps": steps, "eval_every": 1.0, "save_every_steps": steps - 1}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe | {"train": recipe.get("train", {}) | own}))
    stfit = [sys.executable, "-m", "stfit"]
    forecast = run_json([*stfit, "check", str(path), "--json"])["memory_range_mib"]
    result = run_json([*stfit, "train", str(path), "--fresh", "--json", "--runs", str(folder)])
    return forecast, result["peak_rss_mib"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="beginnings of the names of recipes, separated by commas")
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    outside = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, recipe in recipes(find_shared(), Path(scratch)).items():
            if name.startswith(tuple(arguments.only.split(","))):
                (low, high), peak = measure(recipe, arguments.steps, Path(scratch))
                sys.stdout.write(f"| {name} | {low} to {high} | {peak:.0f} |\n")
                sys.stdout.flush()
                outside += [name] if not low <= peak <= high else []
    sys.exit(f"outside of the forecast: {', '.join(outside)}" if outside else 0)


if __name__ == "__main__":
    main()
