"""The benchmark table: stfit against sentence-transformers, both in one run, A B A B.

    STFIT_SHARED=... python tests/benchmarks/bench.py [--rounds 3] [--steps 14] [--only quora] [--json bench.json]

Every figure is a median over the rounds. The share of the peak is model FLOPs over real tokens and time, against a
float32 matrix product of the model's own shapes, measured between the rounds.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from runs import MODEL, find_shared, run_json

BATCH = 64
SETS = {
    "quora": ("data/quora_duplicates/train.jsonl.gz", ["question1", "question2"], 128),
    "allnli": ("data/allnli_triplets/train.jsonl.gz", ["anchor", "positive", "negative"], 128),
    "cranfield": (None, ["title", "text"], 256),
}


MODULES = {"stfit": "stfit.commands.train", "sentence-transformers": "sentence_transformers"}


def cranfield_pairs(shared: Path, folder: Path) -> Path:
    """Titles against abstracts: short and long texts in one batch."""
    path = folder / "cranfield.jsonl.gz"
    with gzip.open(shared / "data/cranfield/corpus.jsonl.gz", "rt") as lines, gzip.open(path, "wt") as out:
        for row in map(json.loads, lines):
            if row["title"].strip() and row["text"].strip():
                out.write(json.dumps({"title": row["title"], "text": row["text"]}) + "\n")
    return path


def run_stfit(shared: Path, data: Path, columns: list[str], limit: int, steps: int, folder: Path) -> dict:
    roles = ["anchor", "positive", "negative"][: len(columns)]
    recipe = folder / "bench.yaml"
    recipe.write_text(json.dumps({
        "model": {"base": str(shared / MODEL), "max_seq_length": limit},
        "data": {"dataset": str(data), "format": "triplet" if len(columns) == 3 else "positive_pair",
                 "columns": dict(zip(roles, columns, strict=True))},
        "loss": "multiple_negatives_ranking",
        "train": {"batch_size": BATCH, "max_steps": steps, "sampler": "shuffle", "save_every_steps": 10_000,
                  "log_every_steps": 1},
    }))  # fmt: skip
    command = [sys.executable, "-m", "stfit", "train", str(recipe), "--fresh", "--json", "--runs", str(folder)]
    return run_json(command, first_step=" step 1/")


def run_st(shared: Path, data: Path, columns: list[str], limit: int, steps: int) -> dict:
    script = str(shared / "bench/peer_train.py")
    options = {
        "model": shared / MODEL,
        "data": data,
        "columns": ",".join(columns),
        "steps": steps,
        "batch-size": BATCH,
        "max-seq-length": limit,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return run_json([sys.executable, script, *words])


def matrix_peak(tokens: int) -> float:
    """Float32 GFLOP/s of the products of a 384-wide layer over `tokens` tokens."""
    code = f"""
import statistics, time, torch
shapes = [(384, 384)] * 4 + [(384, 1536), (1536, 384)]
pairs = [(torch.randn({tokens}, k), torch.randn(k, n)) for k, n in shapes]
times = []
for _ in range(30):
    start = time.perf_counter()
    for a, b in pairs: a @ b
    times.append(time.perf_counter() - start)
print(sum(2 * {tokens} * k * n for k, n in shapes) / statistics.median(times[5:]) / 1e9)
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def tokens_per_row(shared: Path, data: Path, columns: list[str], limit: int) -> float:
    from tokenizers import Tokenizer as HFTokenizer

    tokenizer = HFTokenizer.from_file(str(shared / MODEL / "tokenizer.json"))
    tokenizer.enable_truncation(limit)
    tokenizer.no_padding()
    with gzip.open(data, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    counts = [
        len(encoding.ids) for column in columns for encoding in tokenizer.encode_batch([row[column] for row in rows])
    ]
    return sum(counts) / len(rows)


FLOPS_PER_TOKEN = 6 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)
"""Forward and backward of six layers: 6 times the weights of their matrices."""


def measure(shared: Path, name: str, rounds: int, steps: int) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source, columns, limit = SETS[name]
        data = shared / source if source else cranfield_pairs(shared, folder)
        tokens = tokens_per_row(shared, data, columns, limit)
        ours, theirs, peaks = [], [], []
        for _ in range(rounds):
            ours.append(run_stfit(shared, data, columns, limit, steps, folder))
            theirs.append(run_st(shared, data, columns, limit, steps))
            peaks.append(matrix_peak(round(BATCH * tokens)))
    speed = statistics.median(run["examples_per_second"] for run in ours)
    share = speed * tokens * FLOPS_PER_TOKEN / 1e9 / statistics.median(peaks)
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "set": name,
        "tokens_per_row": round(tokens, 1),
        "stfit_examples_per_second": round(speed, 1),
        "st_examples_per_second": round(statistics.median(run["examples_per_second"] for run in theirs), 1),
        "ratio": round(statistics.median(a["examples_per_second"] / b["examples_per_second"] for a, b in pairs), 2),
        "ratios": [round(a["examples_per_second"] / b["examples_per_second"], 2) for a, b in pairs],
        "peak_share": round(share, 2),
        "matrix_gflops": round(statistics.median(peaks)),
        "stfit_peak_mib": round(statistics.median(run["peak_rss_mib"] for run in ours)),
        "st_peak_mib": round(statistics.median(run["peak_rss_mib"] for run in theirs)),
        "stfit_first_step_seconds": round(statistics.median(run["first_step_seconds"] for run in ours), 1),
        "st_first_step_seconds": st_first_step_seconds(theirs, steps),
    }


def st_first_step_seconds(runs: list[dict], steps: int) -> float:
    """From the command to the end of the first step: the whole run, which saves nothing, less its later steps."""
    return round(statistics.median(r["wall_seconds"] - (steps - 1) * BATCH / r["examples_per_second"] for r in runs), 1)


def import_seconds(module: str) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shared = find_shared()
    rows = [measure(shared, name, options.rounds, options.steps) for name in SETS if options.only in (None, name)]
    imports = {name: import_seconds(module) for name, module in MODULES.items()}
    machine = f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}; float32, batch {BATCH}, in-batch negatives, dropout on; medians of {options.rounds} rounds\n")
    header = [
        "data",
        "stfit ex/s",
        "sentence-transformers ex/s",
        "ratio",
        "share of the matrix peak",
        "peak memory MiB",
        "seconds to the first step",
    ]
    print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for row in rows:
        cells = [
            row["set"],
            row["stfit_examples_per_second"],
            row["st_examples_per_second"],
            row["ratio"],
            f"{row['peak_share']:.0%}",
            f"{row['stfit_peak_mib']} / {row['st_peak_mib']}",
            f"{row['stfit_first_step_seconds']} / {row['st_first_step_seconds']}",
        ]
        print(f"| {' | '.join(map(str, cells))} |")
    print(f"\nimports: stfit {imports['stfit']} s, sentence-transformers {imports['sentence-transformers']} s")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"rows": rows, "import_seconds": imports}, indent=2) + "\n")


if __name__ == "__main__":
    main()
