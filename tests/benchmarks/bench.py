"""Training speed: stfit against sentence-transformers in the same precision, both in one run, A B A B.

    STFIT_SHARED=... python tests/benchmarks/bench.py [--rounds 3] [--steps 14] [--quick] [--only minilm/even]

Every figure is a median over the rounds. The share of the peak is that of model FLOPs over real tokens and time, to the
fastest product of the base's own matrices that a library of the machine reaches in that precision, between the rounds.
"""

import argparse
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
from typing import NamedTuple

from bases import LAST_TOKEN, build_base
from runs import MODEL, find_shared, read_lines, run_json

PRECISIONS = ("float32", "bfloat16")
IN_BATCH = "multiple_negatives_ranking"
EVEN_TOKENS = 64


class Row(NamedTuple):
    base: str
    data: str
    loss: str
    batch: int

    @property
    def name(self) -> str:
        return f"{self.base}/{self.data}"


ROWS = [
    Row("minilm", "quora", IN_BATCH, 64),
    Row("minilm", "even", IN_BATCH, 64),
    Row("distilroberta", "triplets", "triplet", 16),
    Row("mpnet", "quora", IN_BATCH, 32),
    Row("distilbert", "quora", IN_BATCH, 32),
    Row("xlm-roberta", "quora", IN_BATCH, 32),
    Row("modernbert", "quora", IN_BATCH, 32),
    Row("deberta-v3", "quora", IN_BATCH, 32),
    Row("qwen3", "quora", IN_BATCH, 32),
    Row("gemma3", "quora", IN_BATCH, 32),
]
MODULES = {"stfit": "stfit.commands.train", "sentence-transformers": "sentence_transformers"}


def write_data(name: str, shared: Path, folder: Path) -> Path:
    """Rows with the columns of the loss: question pairs; long pairs of one length; triplets."""
    path = folder / f"{name}.jsonl"
    if path.exists():
        return path
    if name == "quora":
        found = read_lines(shared / "data/quora_duplicates/train.jsonl.gz")
        rows = [{"anchor": row["question1"], "positive": row["question2"]} for row in found]
    elif name == "even":
        found = read_lines(shared / "data/stsb/train.jsonl.gz")
        joined = [found[start : start + 10] for start in range(0, len(found) - 10, 2)]
        columns = {"anchor": "sentence1", "positive": "sentence2"}
        rows = [{role: " ".join(row[key] for row in part) for role, key in columns.items()} for part in joined]
    else:
        found = [row["set"] for row in read_lines(shared / "data/qqp_triplets/train.jsonl.gz")]
        rows = [{"anchor": row["query"], "positive": row["pos"][0], "negative": row["neg"][0]} for row in found]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def max_tokens(row: Row) -> int:
    return EVEN_TOKENS if row.data == "even" else 128


def run_stfit(row: Row, precision: str, base: Path, data: Path, steps: int, folder: Path) -> dict:
    recipe = folder / "bench.yaml"
    pooling = "last_token" if row.base in LAST_TOKEN else "mean"
    recipe.write_text(json.dumps({
        "model": {"base": str(base), "pooling": pooling, "max_seq_length": max_tokens(row)},
        "data": {"dataset": str(data), "format": "triplet" if row.loss == "triplet" else "positive_pair"},
        "loss": row.loss,
        "train": {"batch_size": row.batch, "max_steps": steps, "sampler": "shuffle", "save_every_steps": 10_000,
                  "log_every_steps": 1, "precision": precision},
    }))  # fmt: skip
    command = [sys.executable, "-m", "stfit", "train", str(recipe), "--fresh", "--json", "--runs", str(folder)]
    return run_json(command, first_step=" step 1/")


def run_peer(row: Row, precision: str, base: Path, data: Path, steps: int) -> dict:
    options = {
        "base": base,
        "data": data,
        "loss": row.loss,
        "pooling": "last_token" if row.base in LAST_TOKEN else "mean",
        "precision": precision,
        "batch-size": row.batch,
        "steps": steps,
        "max-seq-length": max_tokens(row),
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return run_json([sys.executable, str(Path(__file__).parent / "peer.py"), *words])


def matrices(base: Path) -> list[list[int]]:
    """Inputs and outputs of every linear map in the layers of a base."""
    code = f"""
import json, transformers
weights = dict(transformers.AutoModel.from_pretrained({str(base)!r}).named_parameters())
maps = [weight for name, weight in weights.items() if "layer" in name and weight.ndim == 2]
print(json.dumps([list(weight.shape[::-1]) for weight in maps]))
"""
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def matrix_peak(tokens: int, shapes: list[list[int]], precision: str) -> float:
    """GFLOP/s of the products of these matrices with `tokens` rows, each by the library that is fastest."""
    code = f"""
import statistics, time, torch
dtype, tokens = torch.{precision}, {tokens}
shapes = {sorted({tuple(shape) for shape in shapes})}
linear = torch.ops.mkldnn._linear_pointwise
def seconds(work):
    times = []
    for _ in range(13):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])
total = took = 0
for inputs, outputs in shapes:
    x, w = torch.randn(tokens, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    reordered = torch.ops.mkldnn._reorder_linear_weight(w, tokens)
    by_onednn = [lambda w=w: linear(x, w, None, "none", [], "") for w in (w, reordered)]
    took += min(map(seconds, [lambda: x @ w.t(), *by_onednn]))
    total += 2 * tokens * inputs * outputs
print(total / took / 1e9)
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def tokens_per_example(data: Path, shared: Path, limit: int) -> float:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(shared / MODEL / "tokenizer.json"))
    tokenizer.enable_truncation(limit)
    tokenizer.no_padding()
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    encodings = tokenizer.encode_batch([text for row in rows for text in row.values()])
    return sum(len(encoding.ids) for encoding in encodings) / len(rows)


def measure(row: Row, precision: str, shared: Path, rounds: int, steps: int, folder: Path) -> dict:
    base, data = build_base(row.base, shared, folder), write_data(row.data, shared, folder)
    tokens, shapes = tokens_per_example(data, shared, max_tokens(row)), matrices(base)
    ours, theirs, peaks = [], [], []
    for _ in range(rounds):
        ours.append(run_stfit(row, precision, base, data, steps, folder))
        theirs.append(run_peer(row, precision, base, data, steps))
        peaks.append(matrix_peak(round(row.batch * tokens), shapes, precision))
    speed, peer_speed = (statistics.median(run["examples_per_second"] for run in runs) for runs in (ours, theirs))
    ratios = [a["examples_per_second"] / b["examples_per_second"] for a, b in zip(ours, theirs, strict=True)]
    flops = 6 * sum(inputs * outputs for inputs, outputs in shapes) * tokens
    memory, peer_memory = (statistics.median(run["peak_rss_mib"] for run in runs) for runs in (ours, theirs))
    return {
        "row": row.name,
        "precision": precision,
        "batch": row.batch,
        "tokens_per_example": round(tokens, 1),
        "examples_per_second": round(speed, 1),
        "peer_examples_per_second": round(peer_speed, 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "peak_gflops": round(statistics.median(peaks)),
        "peak_share": round(speed * flops / 1e9 / statistics.median(peaks), 2),
        "peak_mib": round(memory),
        "peer_peak_mib": round(peer_memory),
        "memory_ratio": round(memory / peer_memory, 2),
        "first_step_seconds": round(statistics.median(run["first_step_seconds"] for run in ours), 1),
        "peer_first_step_seconds": peer_first_step_seconds(theirs, steps, row.batch),
    }


def peer_first_step_seconds(runs: list[dict], steps: int, batch: int) -> float:
    """From the command to the end of the first step: the whole run, which saves nothing, less its later steps."""
    return round(statistics.median(r["wall_seconds"] - (steps - 1) * batch / r["examples_per_second"] for r in runs), 1)


def import_seconds(module: str) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times), 2)


HEADER = (
    "base / data, batch",
    "precision",
    "stfit, examples/s",
    "sentence-transformers",
    "ratio",
    "share of the peak",
    "peak memory, MiB",
    "first step, s",
)


def cells(result: dict) -> list[str]:
    return [
        f"{result['row']}, {result['batch']}",
        result["precision"],
        str(result["examples_per_second"]),
        str(result["peer_examples_per_second"]),
        str(result["ratio"]),
        f"{result['peak_share']:.0%} of {result['peak_gflops']}",
        f"{result['peak_mib']} / {result['peer_peak_mib']} = {result['memory_ratio']}",
        f"{result['first_step_seconds']} / {result['peer_first_step_seconds']}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--quick", action="store_true", help="the first row alone, once")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shared = find_shared()
    rows = [row for row in ROWS if row.name in (options.only or [row.name])][: 1 if options.quick else None]
    rounds = 1 if options.quick else options.rounds
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores; medians of {rounds} rounds, dropout on\n")
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}")
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows:
            for precision in options.precision:
                results.append(measure(row, precision, shared, rounds, options.steps, Path(scratch)))
                print(f"| {' | '.join(cells(results[-1]))} |", flush=True)
    imports = {name: import_seconds(module) for name, module in MODULES.items()}
    print(f"\nimports: stfit {imports['stfit']} s, sentence-transformers {imports['sentence-transformers']} s")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"rows": results, "import_seconds": imports}, indent=2) + "\n")


if __name__ == "__main__":
    main()
