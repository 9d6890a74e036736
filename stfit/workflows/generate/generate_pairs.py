"""Passages -> pairs of texts to train on, by methods without a model or with one, filtered."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.checks.leakage import NO_TEXT
from stfit.errors import DataError
from stfit.generation.answers import Answers
from stfit.generation.base import GeneratorBase, MakePairs, Passage
from stfit.generation.filters import Filters
from stfit.io.atomic import atomic_file, wrap_os_errors
from stfit.io.display import shorten
from stfit.options import GenerationOptions
from stfit.progress import task
from stfit.runtime.run_folder import lock_folder
from stfit.runtime.signals import handle_signals_resumably
from stfit.workflows.generate.filter_pairs import read_rows, why_left_out
from stfit.workflows.generate.passages import Corpus, read_passages

log = logging.getLogger("stfit")

WINDOW = 512
"""Passages that a method gets at once."""
NOTHING = np.array([NO_TEXT])
EXAMPLES = 3
"""Rows that are shown of those left out for one reason."""


def generate_pairs(
    corpus: Corpus,
    output: Path,
    methods: Sequence[GeneratorBase],
    options: GenerationOptions,
    *,
    evaluated: np.ndarray = NOTHING,
    device: str = "auto",
) -> dict[str, Any]:
    """`evaluated`: numbers of texts that are left out (see `numbers_of`). After InterruptedRun, call it again."""
    writers = frozenset(method.made_by for method in methods if method.writes_questions)
    filters = Filters(options, evaluated, writers)
    work = output.with_name(f"{output.name}.work")
    store = output.with_name(f"{output.name}.answers.sqlite")
    kept = f"what was written is kept in {store}" if writers else "nothing was lost but time"
    with lock_folder(work / "output"), handle_signals_resumably(lambda: kept), Answers(store) as answers:
        for method in methods:
            if cost := method.describe_cost(read_passages(corpus)):
                log.info("%s: %s", method.made_by, cost)
        opened = {method.made_by: method.open(options.seed, answers) for method in methods}
        counts = _write_rows(read_passages(corpus), opened, work)
        reasons = why_left_out(work / "rows.jsonl", counts["rows"], filters, work / "passages.jsonl", device)
        rows, dropped = _write_kept(work / "rows.jsonl", reasons, output)
        shutil.rmtree(work, ignore_errors=True)
    return {
        "output": str(output),
        "passages": counts["passages"],
        "documents": counts["documents"],
        "rows": sum(rows.values()),
        "rows_by_method": dict(rows),
        "passages_without": {name: counts[name] for name in opened},
        "dropped": dropped,
        "answers": dict(answers.counts),
    }


def _write_rows(passages: Iterator[Passage], methods: dict[str, MakePairs], work: Path) -> Counter[str]:
    """All pairs, and all passages. Returns the numbers of both, and by method that of passages without a pair."""
    counts: Counter[str] = Counter()
    document = None
    with (
        wrap_os_errors(work),
        (work / "rows.jsonl").open("w", encoding="utf-8") as rows,
        (work / "passages.jsonl").open("w", encoding="utf-8") as texts,
        task("generating pairs", unit="passages") as step,
    ):
        while window := list(islice(passages, WINDOW)):
            pairs_by_method = {name: list(make_pairs(window)) for name, make_pairs in methods.items()}
            for number, passage in enumerate(window):
                counts["documents"] += passage.document != document  # passages of a document are in a row
                document = passage.document
                _write_line(texts, {"text": passage.text})
                for name, pairs in pairs_by_method.items():
                    counts[name] += not pairs[number]
                    counts["rows"] += len(pairs[number])
                    for pair in pairs[number]:
                        source = {"passage": passage.id, "document": passage.document, "generated_by": name}
                        _write_line(rows, pair._asdict() | source | {"number": counts["passages"] + number})
            counts["passages"] += len(window)
            step.update(counts["passages"])
    if not counts["rows"]:
        reason = "no text" if not counts["passages"] else "too short a text, or no title"
        raise DataError(f"no pair can be made: {counts['passages']} passages were read, which have {reason}")
    return counts


def _write_line(file: Any, row: dict[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_kept(rows: Path, reasons: list[str | None], output: Path) -> tuple[Counter[str], dict[str, dict[str, Any]]]:
    """Write the rows that are kept. Returns their number by method and, by reason, the others' with some of them."""
    kept: Counter[str] = Counter()
    dropped: dict[str, dict[str, Any]] = {}
    if None not in reasons:
        listed = ", ".join(f"{reason}: {count}" for reason, count in Counter(reasons).most_common())
        raise DataError(f"no pair is left of {len(reasons)} ({listed})")
    why = iter(reasons)
    with atomic_file(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for block in read_rows(rows):
            for row, reason in zip(block, why, strict=False):
                if reason is None:
                    del row["number"]
                    kept[row["generated_by"]] += 1
                    _write_line(file, row)
                    continue
                found = dropped.setdefault(reason, {"rows": 0, "examples": []})
                found["rows"] += 1
                if len(found["examples"]) < EXAMPLES:
                    found["examples"].append(shorten(row["anchor"], 120))
    return kept, dropped
