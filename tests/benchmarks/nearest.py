"""Clusters against community_detection, and the rate and memory of a search in a million embeddings: A B A B.

    python tests/benchmarks/nearest.py MODEL EMBEDDINGS.npy [--rounds 3] [--only clusters]

EMBEDDINGS are real ones of this model, 100,000 say, as `stfit encode` writes them. Those that are searched are random,
with as many dimensions: what they are does not change how long a search takes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from sentence_transformers.util import community_detection

from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.neighbors.communities import find_communities

THRESHOLD, MIN_SIZE = 0.75, 10
SIZES = (5_000, 20_000, 100_000)
CORPUS, QUERIES, BLOCK, TOP = 1_000_000, 1_000, 16_384, 10


def seconds(work) -> tuple[float, object]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def measure_clusters(embeddings: np.ndarray, rounds: int) -> None:
    print(f"| texts | communities at {THRESHOLD} | stfit, s | sentence-transformers, s | ratio |")
    for size in (size for size in SIZES if size <= len(embeddings)):
        part, times = embeddings[:size], []
        for _ in range(rounds):
            own, found = seconds(lambda part=part: find_communities(EmbeddingMatrix([part]), THRESHOLD, MIN_SIZE))
            other, expected = seconds(lambda part=part: community_detection(part, THRESHOLD, MIN_SIZE))
            assert [(m[0], set(m.tolist())) for m, _ in found] == [(each[0], set(each)) for each in expected]
            times.append((own, other))
        own, other = (median(column) for column in zip(*times, strict=True))
        ratio = median(other / own for own, other in times)
        print(f"| {size:,} | {len(found)} | {own:.2f} | {other:.2f} | {ratio:.1f} |", flush=True)


def measure_search(model: str, dim: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus, queries = Path(folder) / "corpus.npy", Path(folder) / "queries.txt"
        write_corpus(corpus, dim)
        queries.write_text("".join(f"what is said about {number}?\n" for number in range(QUERIES)))
        command = [sys.executable, "-m", "stfit", "search", model, str(corpus), "--queries", str(queries)]
        command += ["--top", str(TOP), "-o", str(Path(folder) / "found.jsonl")]
        alone = [*command[:5], str(corpus.with_name("few.npy")), *command[6:]]
        for _ in range(rounds):
            whole, peak = seconds(lambda: run_with_peak(command))
            begin, _ = seconds(lambda: run_with_peak(alone))
            product, _ = seconds(lambda: multiply(corpus))
            print(
                f"search {whole - begin:.1f} s without {begin:.1f} s to begin and to embed the queries; "
                f"the product {product:.1f} s, {product / (whole - begin):.0%}; peak {peak:.0f} MiB",
                flush=True,
            )


def write_corpus(path: Path, dim: int) -> None:
    random = np.random.default_rng(0)
    corpus = np.lib.format.open_memmap(path, "w+", np.float32, (CORPUS, dim))
    for start in range(0, CORPUS, BLOCK):
        corpus[start : start + BLOCK] = random.standard_normal((min(BLOCK, CORPUS - start), dim))
    np.save(path.with_name("few.npy"), corpus[:100])


def run_with_peak(command: list[str]) -> float:
    """The largest resident memory of a command in MiB, looked at often."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.02)
    if process.wait():
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    return peak / 2**20


def multiply(path: Path) -> None:
    """Read the corpus and multiply it with as many vectors as there are queries."""
    corpus = np.load(path, mmap_mode="r")
    queries = torch.randn(QUERIES, corpus.shape[1])
    for start in range(0, CORPUS, BLOCK):
        queries @ torch.from_numpy(np.array(corpus[start : start + BLOCK])).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["clusters", "search"])
    asked = parser.parse_args()
    embeddings = np.load(asked.embeddings)
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads")
    if asked.only != "search":
        measure_clusters(embeddings, asked.rounds)
    if asked.only != "clusters":
        measure_search(asked.model, embeddings.shape[1], asked.rounds)


if __name__ == "__main__":
    main()
