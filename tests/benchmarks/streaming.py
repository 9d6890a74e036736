"""Memory and speed of an epoch over a stream, without the model: rows are made, then read, drawn and tokenised.

Without a tokenizer they are read and drawn only, which is what going on with a run costs.

    python tests/benchmarks/streaming.py --rows 10000000 --kind jsonl [--tokenizer MODEL/tokenizer.json] [--memory]

Prints what the process holds in memory after each tenth of the rows. `--memory` reads the source whole, as it is read
without streaming.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from stfit.data.batching.batches import TokenTable, tokenize_examples
from stfit.data.batching.shuffle_buffer import StreamingBatches
from stfit.data.checks.lengths import estimate_tokens
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.load_examples import load_examples
from stfit.data.source import TrainingData
from stfit.encoder.tokenizer import untruncated_tokenizer

BATCH = 64
AT_ONCE = 50_000
SAID = "how can i reset my password when the mail with a link never comes and nobody answers"


def rows_from(start: int, stop: int) -> dict[str, list[str]]:
    """Made-up pairs of about 70 characters, no two alike."""
    numbers = range(start, stop)
    said = [SAID[i % 40 : 70 + i % 17] for i in numbers]
    return {
        "anchor": [f"{text} {i}" for i, text in zip(numbers, said, strict=True)],
        "positive": [f"case {i}: {text}" for i, text in zip(numbers, said, strict=True)],
    }


def write_rows(path: Path, rows: int) -> None:
    blocks = (rows_from(start, min(start + AT_ONCE, rows)) for start in range(0, rows, AT_ONCE))
    if path.suffix == ".parquet":
        schema = pa.schema({"anchor": pa.string(), "positive": pa.string()})
        with parquet.ParquetWriter(path, schema) as file:
            for block in blocks:
                file.write_table(pa.table(block, schema))
        return
    with path.open("w") as file:
        for block in blocks:
            for anchor, positive in zip(*block.values(), strict=True):
                file.write(json.dumps({"anchor": anchor, "positive": positive}) + "\n")


def resident_mib() -> float:
    """What the process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(source: TrainingData, rows: int, tokenizer: Path | None) -> Iterator[tuple[int, float, float]]:
    """Rows so far, MiB, and seconds, ten times in an epoch."""
    tokens = untruncated_tokenizer(tokenizer) if tokenizer else estimate_tokens

    def tokenize(examples: Examples) -> TokenTable:
        return tokenize_examples(examples, {"anchor": "", "positive": ""}, tokens, None, lambda prompt: 0)

    stream = StreamingBatches(source, "no_duplicates", BATCH, 2, 42, lambda examples: None, tokenize)
    seen, said, begun = 0, 0, time.perf_counter()
    for drawn in stream:
        seen += len(drawn.rows)
        if tokenizer is not None:
            drawn.batch(distinct=False)
        if seen >= (said + 1) * rows // 10:
            said += 1
            yield seen, resident_mib(), time.perf_counter() - begun
        if seen >= rows:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--kind", choices=["jsonl", "parquet"], default="jsonl")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--memory", action="store_true")
    chosen = parser.parse_args()
    say = partial(print, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{chosen.kind}"
        write_rows(path, chosen.rows)
        source = TrainingData(dataset=str(path), format="positive_pair", streaming=not chosen.memory)
        say(f"{chosen.rows} rows, {path.stat().st_size >> 20} MiB of {chosen.kind}; {resident_mib():.0f} MiB before")
        if chosen.memory:
            examples, _ = load_examples(source, source.format, 42)
            say(f"{len(examples):>10} rows  {resident_mib():5.0f} MiB  (all of them in memory)")
            return
        for seen, mib, seconds in measure(source, chosen.rows, chosen.tokenizer):
            say(f"{seen:>10} rows  {mib:5.0f} MiB  {seen / seconds:8.0f} rows/s")


if __name__ == "__main__":
    sys.exit(main())
