"""Time and memory of the search for evaluation texts among training texts.

    python tests/benchmarks/leakage.py [ROWS ...]

ROWS pairs of texts (default: 100,000 and 1,000,000) are compared with an evaluator of 10,000 pairs. A row is made when
it is needed, so that the memory is that of the search. Prints one line per search and number of rows.
"""

import resource
import sys
import time
from collections.abc import Iterator

import numpy as np

from stfit.data.checks.leakage import Measured, columns_of, shared_texts
from stfit.data.checks.near_duplicates import near_duplicates
from stfit.data.mapping.examples import Examples

BLOCK = 10_000
WORDS = np.array([f"word{number}" for number in range(50_000)])


def draw(seed: int) -> Examples:
    """BLOCK pairs: a question of 10 words, and an answer of 40."""
    generator = np.random.default_rng(seed)
    texts: dict[str, list[str | None]] = {
        role: [" ".join(row) for row in WORDS[generator.integers(len(WORDS), size=(BLOCK, words))].tolist()]
        for role, words in (("anchor", 10), ("positive", 40))
    }
    return Examples("positive_pair", texts, None, "none", None, np.arange(1, BLOCK + 1), {})


def training(rows: int) -> Iterator[Examples]:
    return map(draw, range(rows // BLOCK))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(sizes: list[int]) -> None:
    examples = draw(0)  # its texts are all trained on
    evaluations = [Measured("dev", "dev.jsonl", columns_of(examples), examples)]
    for find in (shared_texts, near_duplicates):
        find(training(BLOCK), evaluations)
        for rows in sizes:
            start = time.process_time()
            for _ in training(rows):
                pass
            making, before = time.process_time() - start, peak_mib()
            start = time.process_time()
            find(training(rows), evaluations)
            seconds = time.process_time() - start - making
            sys.stdout.write(f"{find.__name__}: {rows} rows in {seconds:.1f} s, {peak_mib() - before:.0f} MiB more\n")


if __name__ == "__main__":
    main([int(rows) for rows in sys.argv[1:]] or [100_000, 1_000_000])
