"""The page of results.py: a table for each base, from the lines that were measured."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

T_95 = 4.303
"""Half-width of a 95% interval of three values, in standard errors (Student's t, two degrees of freedom)."""

INTRODUCTION = """# Results on public data

Bases as they are, after stfit, and after sentence-transformers 6.2, on the same rows, with the same loss, batch size
(32), learning rate (2e-5, warmed up over a tenth of the steps), one epoch, float32 and texts of at most 128 tokens. The
sets are public; {rows} rows of each were drawn, so that a row of the table takes minutes. Both models are measured by
stfit's evaluators on test rows: twice as many as were trained on; for Cranfield, a corpus of four times as many, or
the whole.

A value is the mean over seeds 1, 2 and 3, and the half-width of its 95% interval (t distribution): the rows of
training and evaluation are the same for every seed, so it says what the order of rows and dropout do, not what other
rows would. The difference is paired by seed. **Bold**: its interval does not hold 0.

Time is that of one processor core, from the start of the command to the saved model: for so few rows, loading packages
and the model, and saving it, are most of it ([performance](performance.md) measures the training itself). Memory is the
peak. Both are medians of three: stfit / sentence-transformers. `make results` measured them
on {measured}.
"""

TOOLS = ("base", "stfit", "sentence-transformers")


def write_page(lines: Sequence[dict[str, Any]], page: Path) -> None:
    bases = list(dict.fromkeys(line["base"] for line in lines))
    rows = " or ".join(sorted({str(line["rows"]) for line in lines}, key=int, reverse=True))
    days: dict[str, set[str]] = {}
    for line in lines:
        days.setdefault(line["machine"], set()).add(line["day"])
    measured = "; ".join(f"one core of {machine} on {' and '.join(sorted(days[machine]))}" for machine in days)
    head = INTRODUCTION.format(rows=rows, measured=measured)
    tables = [_table(base, [line for line in lines if line["base"] == base]) for base in bases]
    page.write_text("\n".join([head, *tables]), encoding="utf-8")


def _table(base: str, lines: Sequence[dict[str, Any]]) -> str:
    header = ["data", "metric", "as it is", "stfit", "sentence-transformers", "difference", "time, s", "memory, MiB"]
    text = [f"## {base}\n", f"{lines[0]['rows']} rows to train on.\n", f"| {' | '.join(header)} |"]
    text.append(f"| --- | --- |{' --: |' * 6}")
    for task in dict.fromkeys(line["task"] for line in lines):
        of = {tool: [line for line in lines if (line["task"], line["tool"]) == (task, tool)] for tool in TOOLS}
        if len(of["base"]) == 1 and len(of["stfit"]) == len(of["sentence-transformers"]) == 3:
            text += [f"| {' | '.join(_cells(task, metric, of))} |" for metric in of["base"][0]["values"]]
    return "\n".join(text) + "\n"


def _cells(task: str, metric: str, of: dict[str, list[dict[str, Any]]]) -> list[str]:
    values = {tool: [line["values"][metric] for line in lines] for tool, lines in of.items()}
    differences = [ours - theirs for ours, theirs in zip(values["stfit"], values["sentence-transformers"], strict=True)]
    low, high = mean(differences) - half_width(differences), mean(differences) + half_width(differences)
    difference = f"{mean(differences):+.4f} ± {half_width(differences):.4f}"
    both = (of["stfit"], of["sentence-transformers"])
    return [
        task,
        metric,
        f"{values['base'][0]:.4f}",
        *(f"{mean(values[tool]):.4f} ± {half_width(values[tool]):.4f}" for tool in TOOLS[1:]),
        difference if low <= 0 <= high else f"**{difference}**",
        *(
            " / ".join(f"{median(line[key] for line in lines):.0f}" for lines in both)
            for key in ("processor_seconds", "peak_rss_mib")
        ),
    ]


def half_width(values: Sequence[float]) -> float:
    return T_95 * stdev(values) / math.sqrt(len(values))
