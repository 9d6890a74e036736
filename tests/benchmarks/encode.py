"""Encoding, against SentenceTransformer.encode with its best batch size: both in one run, A B A B.

    STFIT_SHARED=... python tests/benchmarks/encode.py MODEL [--rounds 3] [--only quora] [--json encode.json]

Every figure is a median over the rounds, tokenising included. The share of the peak is the model's FLOPs over the real
tokens of all texts and the time, against float32 products of its shapes with weights laid out beforehand.
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

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder

SETS = {
    "quora": ("data/quora_duplicates/train.jsonl.gz", ["question1", "question2"], 2000),
    "snli": ("data/snli/validation.jsonl.gz", ["premise", "hypothesis"], 8000),
    "cranfield": ("data/cranfield/corpus.jsonl.gz", ["text"], 250),
}
"""Name -> file, columns, and how many texts are encoded, repeats included."""

BATCH_SIZES = (16, 32, 64, 128)


def texts_of(shared: Path, name: str) -> list[str]:
    path, columns, most = SETS[name]
    with gzip.open(shared / path, "rt") as lines:
        texts = [row[column] for row in map(json.loads, lines) for column in columns]
    return [text for text in texts if text.strip()][:most]


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak(hidden: int, inner: int) -> float:
    """Float32 GFLOP/s of a layer's products over 1,024 tokens."""
    times = []
    shapes = [(hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)]
    matrices = [(torch.randn(1024, k), torch.ops.mkldnn._reorder_linear_weight(torch.randn(n, k))) for k, n in shapes]
    for _ in range(20):
        times.append(
            seconds(lambda: [torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "none") for x, w in matrices])
        )
    return sum(2 * 1024 * k * n for k, n in shapes) / statistics.median(times[5:]) / 1e9


def measure(name: str, texts: list[str], encoder: Encoder, st_model: SentenceTransformer, rounds: int) -> dict:
    sample = texts[: len(texts) // 8]
    encoder.encode(sample)
    best = min(BATCH_SIZES, key=lambda size: seconds(lambda: st_model.encode(sample, batch_size=size)))
    ours, fast, theirs, peaks = [], [], [], []
    config = encoder.backbone.config
    for _ in range(rounds):
        ours.append(seconds(lambda: encoder.encode(texts)))
        theirs.append(seconds(lambda: st_model.encode(texts, batch_size=best)))
        peaks.append(peak(config.hidden_size, config.intermediate_size))
    sequences = encoder.tokenizer(list(dict.fromkeys(texts)))
    fast = [seconds(lambda: encoder.embed(sequences, fast=True)) for _ in range(rounds)]
    difference = np.abs(encoder.encode(sample) - st_model.encode(sample, batch_size=best)).max()
    tokens = sum(map(len, sequences))
    weights = config.num_hidden_layers * config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size)
    return {
        "texts": f"{name}: {len(texts)}, {len(sequences)} distinct, {tokens / len(sequences):.0f} tokens each",
        "stfit": round(len(texts) / statistics.median(ours)),
        "sentence-transformers": round(len(texts) / statistics.median(theirs)),
        "batch size": best,
        "ratio": round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2),
        "ratios": [round(b / a, 2) for a, b in zip(ours, theirs, strict=True)],
        "share of the peak": round(2 * weights * tokens / statistics.median(ours) / 1e9 / statistics.median(peaks), 2),
        "--fast": round(len(texts) / statistics.median(fast)),
        "difference": float(difference),
    }


def first_row(model: str, texts: list[str]) -> float:
    """Seconds from the start of the command to the first rows on disk."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "t.txt").write_text("\n".join(" ".join(text.split()) for text in texts))
        command = [sys.executable, "-m", "stfit", "encode", model, str(folder / "t.txt"), "-o", str(folder / "o.npy")]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(folder.glob("o.npy.parts/*.safetensors")):
            time.sleep(0.01)
        took = time.perf_counter() - start
        process.terminate()
        process.wait()
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shared = os.environ.get("STFIT_SHARED")
    if not shared:
        sys.exit("STFIT_SHARED has to name the folder with the data")
    names = [name for name in SETS if options.only in (None, name)]
    texts = {name: texts_of(Path(shared), name) for name in names}
    start = round(statistics.median(first_row(options.model, next(iter(texts.values()))) for _ in range(5)), 1)
    encoder, st_model = load_encoder(options.model), SentenceTransformer(options.model, device="cpu")
    rows = [measure(name, texts[name], encoder, st_model, options.rounds) for name in names]
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores; texts a second, medians of {options.rounds}\n"
    )
    shown = [key for key in rows[0] if key != "ratios"]
    print(f"| {' | '.join(shown)} |\n|{' --- |' * len(shown)}")
    for row in rows:
        print(f"| {' | '.join(str(row[key]) for key in shown)} |")
    print(f"\nratios: {[row['ratios'] for row in rows]}\ncommand start to first rows on disk: {start} s")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "first_row_seconds": start}, indent=2) + "\n")


if __name__ == "__main__":
    main()
