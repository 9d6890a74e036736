"""Whether training in bfloat16 costs quality: the same trainings in float32 and in bfloat16, measured in float32.

    STFIT_SHARED=... python tests/benchmarks/precision.py NAME=FOLDER:ROWS:RATE ... [--seeds 10] [--runs runs/precision]

Non-inferiority with a margin of one point of the metric: the differences of each seed are averaged, and bfloat16 is as
good if the lower end of their one-sided 95% interval (Student's t) is above -0.01. sentence-transformers in float32, on
the first seeds, is shown beside them. What was measured is kept in RUNS/precision.jsonl, so that the same command goes
on where it was stopped.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
from pathlib import Path

from results import TASKS, evaluate, prepare, train_st, train_stfit, with_limit
from runs import find_shared
from scipy.stats import t

NAMES = ("STS-B", "Quora pairs", "TREC")
SEEDS, PEER_SEEDS = 10, 3
MARGIN, LEVEL = 0.01, 0.95
PRECISIONS = ("float32", "bfloat16")
TOOLS = (*PRECISIONS, "sentence-transformers")


def measure(shared: Path, base: Path, task: str, seed: int, tool: str, folder: Path, rows: int, rate: float) -> dict:
    """The value of the metric and the seconds of one training."""
    shutil.rmtree(folder, ignore_errors=True)
    recipe = prepare(shared, task, rows, folder / "rows")
    recipe |= {"model": {"base": str(with_limit(base, folder))}, "seed": seed}
    recipe["train"]["learning_rate"] = rate
    if tool in PRECISIONS:
        recipe["train"]["precision"] = tool
    run = (train_stfit if tool in PRECISIONS else train_st)(recipe, folder)
    metric = TASKS[task][-1][0]
    value = evaluate(run["model"], recipe, folder)[f"test/{metric}"]
    return {"metric": metric, "value": value, "seconds": run["wall_seconds"]}


def lower_end(differences: list[float]) -> float:
    """Of the one-sided interval of their mean."""
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return statistics.mean(differences) - float(t.ppf(LEVEL, len(differences) - 1)) * error


def row(base: str, task: str, lines: list[dict]) -> list[str]:
    values = {tool: {line["seed"]: line["value"] for line in lines if line["tool"] == tool} for tool in TOOLS}
    both = sorted(values["float32"].keys() & values["bfloat16"].keys())
    differences = [values["bfloat16"][seed] - values["float32"][seed] for seed in both]
    compared = [[values[tool][seed] for seed in both] for tool in PRECISIONS] + [list(values[TOOLS[-1]].values())]
    means = [f"{100 * statistics.mean(of_tool):.2f}" if of_tool else "" for of_tool in compared]
    low = lower_end(differences)
    verdict = "not worse" if low > -MARGIN else "not shown"
    spread = 100 * statistics.stdev(values["float32"].values())
    mean = 100 * statistics.mean(differences)
    return [
        base,
        f"{task}, {lines[0]['metric']}",
        str(len(both)),
        *means,
        f"{spread:.2f}",
        f"{mean:+.2f}",
        f"{100 * low:+.2f}",
        verdict,
    ]


HEADER = ["base", "task", "seeds", *TOOLS, "spread of float32", "difference", "lower end", "bfloat16 is"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs="*", help="NAME=FOLDER:ROWS:RATE")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--tasks", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--runs", type=Path, default=Path("runs/precision"))
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    shared = find_shared()
    options.runs.mkdir(parents=True, exist_ok=True)
    kept = options.runs / "precision.jsonl"
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(line["base"], line["task"], line["seed"], line["tool"]) for line in lines}
    bases = [word.partition("=")[::2] for word in options.bases]
    own = [(seed, tool) for seed in range(options.first, options.first + options.seeds) for tool in PRECISIONS]
    for seed, tool in own + [(seed, TOOLS[-1]) for seed in range(1, PEER_SEEDS + 1)]:
        for (name, where), task in itertools.product(bases, options.tasks):
            if (name, task, seed, tool) in done:
                continue
            path, rows, rate = where.rsplit(":", 2)
            settings = {"rows": int(rows), "rate": float(rate)}
            found = measure(
                shared, Path(path).resolve(), task, seed, tool, (options.runs / "work").resolve(), **settings
            )
            lines.append({"base": name, "task": task, "seed": seed, "tool": tool, **settings, **found})
            with kept.open("a") as out:
                out.write(json.dumps(lines[-1]) + "\n")
            print(json.dumps(lines[-1]), flush=True)
    print(f"\n| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}")
    for base, task in dict.fromkeys((line["base"], line["task"]) for line in lines):
        of_task = [line for line in lines if (line["base"], line["task"]) == (base, task)]
        if len({line["seed"] for line in of_task if line["tool"] == "bfloat16"}) > 1:
            print(f"| {' | '.join(row(base, task, of_task))} |")


if __name__ == "__main__":
    main()
