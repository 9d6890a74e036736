"""Encoding in float32 and in bfloat16, against SentenceTransformer.encode with its best batch size: A B A B.

    STFIT_SHARED=... python tests/benchmarks/encode.py MODEL [--rounds 3] [--only quora] [--json encode.json]

Every figure is a median over the rounds, tokenising included. The share of the peak is the model's FLOPs over the real
tokens of all texts and the time, against products of its shapes with weights laid out beforehand. At last, how near
the embeddings of `--fast` are to those in float32, and what retrieval finds with them.
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

import numpy as np
import torch
from runs import read_lines
from sentence_transformers import SentenceTransformer

from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder

SETS = {
    "quora": ("data/quora_duplicates/train.jsonl.gz", ["question1", "question2"], 2000),
    "snli": ("data/snli/validation.jsonl.gz", ["premise", "hypothesis"], 8000),
    "cranfield": ("data/cranfield/corpus.jsonl.gz", ["text"], 250),
    "stsb": ("data/stsb/test.jsonl.gz", ["sentence1", "sentence2"], 2000),
    "banking77": ("data/banking77/test.jsonl.gz", ["text"], 2000),
}
"""Name -> file, columns, and how many texts are encoded, repeats included."""

BATCH_SIZES = (16, 32, 64, 128)


def texts_of(shared: Path, name: str) -> list[str]:
    path, columns, most = SETS[name]
    texts = [row[column] for row in read_lines(shared / path) for column in columns]
    return [text for text in texts if text.strip()][:most]


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak(hidden: int, inner: int, dtype: torch.dtype) -> float:
    """GFLOP/s of a layer's products over 1,024 tokens."""
    times = []
    shapes = [(hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)]
    drawn = [(torch.randn(1024, k, dtype=dtype), torch.randn(n, k, dtype=dtype)) for k, n in shapes]
    matrices = [(x, torch.ops.mkldnn._reorder_linear_weight(w)) for x, w in drawn]
    for _ in range(20):
        times.append(
            seconds(lambda: [torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "none") for x, w in matrices])
        )
    return sum(2 * 1024 * k * n for k, n in shapes) / statistics.median(times[5:]) / 1e9


def measure(
    name: str, texts: list[str], encoder: Encoder, st_model: SentenceTransformer, rounds: int, fast: bool
) -> dict:
    """`st_model` computes in the same precision."""
    sample = texts[: len(texts) // 8]
    st_model.encode(sample)
    best = min(BATCH_SIZES, key=lambda size: seconds(lambda: st_model.encode(sample, batch_size=size)))
    dtype, config = torch.bfloat16 if fast else torch.float32, encoder.backbone.config

    def encode() -> None:
        distinct = list(dict.fromkeys(texts))
        encoder.embed(encoder.tokenizer(distinct), fast=fast)

    encode()
    ours, theirs, peaks = [], [], []
    for _ in range(rounds):
        ours.append(seconds(encode))
        theirs.append(seconds(lambda: st_model.encode(texts, batch_size=best)))
        peaks.append(peak(config.hidden_size, config.intermediate_size, dtype))
    sequences = encoder.tokenizer(list(dict.fromkeys(texts)))
    tokens = sum(map(len, sequences))
    weights = config.num_hidden_layers * config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "texts": f"{name}: {len(texts)}, {len(sequences)} distinct, {tokens / len(sequences):.0f} tokens each",
        "precision": str(dtype).removeprefix("torch."),
        "stfit": round(len(texts) / statistics.median(ours)),
        "sentence-transformers": round(len(texts) / statistics.median(theirs)),
        "batch size": best,
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "share of the peak": round(2 * weights * tokens / statistics.median(ours) / 1e9 / statistics.median(peaks), 2),
    }


def closeness(texts: list[str], encoder: Encoder) -> tuple[float, float]:
    """Lowest and mean cosine of the embeddings of `--fast` to those in float32."""
    sequences = encoder.tokenizer(list(dict.fromkeys(texts)))
    exact, fast = (encoder.embed(sequences, normalize=True, fast=fast) for fast in (False, True))
    cosines = (exact * fast).sum(1)
    return float(cosines.min()), float(cosines.mean())


def ndcg(shared: Path, encoder: Encoder, fast: bool) -> float:
    """ndcg@10 of Cranfield's queries, with its grades as they are."""
    folder = shared / "data/cranfield"
    corpus, queries = (
        {row["_id"]: row for row in read_lines(folder / f"{name}.jsonl.gz")} for name in ("corpus", "queries")
    )
    judged: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels/test.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        judged.setdefault(query, {})[document] = int(grade)

    def embed(texts: list[str]) -> np.ndarray:
        return encoder.embed(encoder.tokenizer(texts), normalize=True, fast=fast)

    documents = list(corpus)
    of_documents = embed([f"{row['title']} {row['text']}".strip() for row in corpus.values()])
    of_queries = embed([queries[query]["text"] for query in judged])
    discounts = 1 / np.log2(np.arange(2, 12))
    found = []
    for grades, scores in zip(judged.values(), of_queries @ of_documents.T, strict=True):
        gains = [max(grades.get(documents[i], 0), 0) for i in np.argsort(-scores, kind="stable")[:10]]
        best = sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:10]
        found.append(np.dot(gains, discounts) / max(np.dot(best, discounts[: len(best)]), 1e-9))
    return float(np.mean(found))


def first_row(model: str, texts: list[str]) -> float:
    """Seconds from the start of the command to the first rows on disk."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "t.txt").write_text("\n".join(" ".join(text.split()) for text in texts))
        command = [sys.executable, "-m", "stfit", "encode", model, str(folder / "t.txt"), "-o", str(folder / "o.npy")]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(folder.glob("o.npy.windows/*.safetensors")):
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
    encoder = load_encoder(options.model)
    rows = []
    for fast in (False, True):
        dtype = torch.bfloat16 if fast else torch.float32
        st_model = SentenceTransformer(options.model, device="cpu", model_kwargs={"dtype": dtype})
        rows += [measure(name, texts[name], encoder, st_model, options.rounds, fast) for name in names]
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores; texts a second, medians of {options.rounds}\n"
    )
    shown = [key for key in rows[0] if key != "ratios"]
    print(f"| {' | '.join(shown)} |\n|{' --- |' * len(shown)}")
    for row in rows:
        print(f"| {' | '.join(str(row[key]) for key in shown)} |")
    print(f"\nratios: {[row['ratios'] for row in rows]}\ncommand start to first rows on disk: {start} s")
    for name in names:
        lowest, mean = closeness(texts[name], encoder)
        print(f"{name}: cosine of --fast to float32 at least {lowest:.5f}, mean {mean:.6f}")
    exact, in_bfloat16 = (ndcg(Path(shared), encoder, fast) for fast in (False, True))
    print(f"cranfield: ndcg@10 {exact:.4f}, with --fast {in_bfloat16:.4f}")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "first_row_seconds": start}, indent=2) + "\n")


if __name__ == "__main__":
    main()
