"""The result of each verb, on stdout: one JSON object, or lines for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stfit.cli.console import show_json, table
from stfit.cli.github_summary import add_to_summary
from stfit.cli.live_line import LiveLine, say

if TYPE_CHECKING:
    from stfit.commands.encode import Encoded
    from stfit.commands.train import Event, Finished
    from stfit.errors import Problem
    from stfit.training.loop import StepInfo
    from stfit.workflows.session import Started


def show_config(values: dict[str, tuple[Any, str]], as_json: bool) -> None:
    """Every value of a recipe as an override would write it, and where it was said."""
    if as_json:
        show_json({"values": {key: {"value": value, "origin": origin} for key, (value, origin) in values.items()}})
        return
    from stfit.recipe.dump import to_inline_yaml

    lines = {f"{key}={to_inline_yaml(value)}": origin for key, (value, origin) in values.items()}
    width = min(60, max(map(len, lines)))
    for line, origin in lines.items():
        sys.stdout.write(f"{line:<{width}}  {origin}\n")


def show_unchanged(result: dict[str, Any], as_json: bool) -> None:
    """That there is nothing to train."""
    if as_json:
        show_json(result)
    else:
        say(f"nothing to do: recipe and inputs are those of {result['repo']} at {result['commit'][:8]}")


def show_fetched(result: dict[str, Any], as_json: bool) -> None:
    """What is here now."""
    if as_json:
        show_json(result)
        return
    for each in result["fetched"]:
        sys.stdout.write(f"{each['kind']} {each['id']} {each['commit']}\n")
    if not result["fetched"]:
        say("nothing to fetch: the recipe names nothing of the Hub")


def show_init(result: dict[str, Any], as_json: bool) -> None:
    """What was proposed and why, and what to do next."""
    if as_json:
        show_json(result)
        return
    recipe = result["recipe"]
    sys.stdout.write(f"{recipe}: {result['format']}, {result['loss']}\n")
    sys.stdout.write("".join(f"  {reason}\n" for reason in result["reasons"]))
    sys.stdout.write(f"Next: stfit check {recipe}\n")


def show_training(events: Iterable[Event], as_json: bool) -> None:
    """Follow a training to its end."""
    from stfit.commands.train import Finished
    from stfit.training.loop import StepInfo
    from stfit.workflows.session import Evaluated, Started

    line = LiveLine()
    rows, seconds = 0, 0.0
    try:
        for event in events:
            match event:
                case Started():
                    main, total = event.main, event.total_steps
                    _say_start(event)
                case StepInfo():
                    rows, seconds = rows + event.rows, seconds + event.seconds
                    line.show(_text_of_step(event, total, rows / seconds), event.step / total)
                case Evaluated():
                    shown = {name: event.metrics[name] for name in main if name in event.metrics}
                    if shown:
                        say(f"step {event.step}: " + "  ".join(f"{name} {value:.4f}" for name, value in shown.items()))
                case Finished():
                    finished = event
                case _:
                    pass  # a saved checkpoint is no news
    finally:
        line.close()
    _show_result(finished, as_json)


def _text_of_step(info: StepInfo, total: int, speed: float) -> str:
    """A step in numbers, the most wanted first: what doesn't fit into a window is cut off."""
    return f"step {info.step}/{total}  loss {info.loss:.4f}  {speed:.0f} examples/s  lr {info.learning_rate:.2e}"


def _say_start(event: Started) -> None:
    """What is about to happen."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in event.dropped.items())
    counted = "a stream" if event.rows is None else f"{event.rows} examples"
    rows = f"{counted}{f' (dropped: {dropped})' if dropped else ''}"
    begin = f", from step {event.first_step} on" if event.first_step else ""
    say(f"{event.run}: {rows}, {event.total_steps} steps{begin}")


def _show_result(event: Finished, as_json: bool) -> None:
    """Metrics before and after, and where the model is."""
    result = event.result
    if event.again:
        say(f"{result['run']}: finished before; --fresh trains anew")
    rows = [(name, result["baseline"].get(name), result["metrics"].get(name)) for name in event.main]
    took = f"{result['steps']} steps in {result['seconds']:.1f} s"
    add_to_summary(f"stfit train: {result['run']}", ["metric", "before", "after", "gain"], cells_of(rows), took)
    if as_json:
        show_json(result)
        return
    if rows:
        table(["metric", "before", "after", "gain"], cells_of(rows))
    speed = result["examples_per_second"]
    pace = f" at {speed:.0f} examples/s" if speed else ""
    sys.stdout.write(f"{result['model']}: {took}{pace}\n{result['run']}/report.html: what came of it\n")


def cells_of(rows: list[tuple[str, float | None, float | None]]) -> list[list[str]]:
    """Name, before, after and the difference, as text; empty where there is no value."""
    return [
        [name, number(before), number(after), "" if before is None or after is None else _signed(after - before)]
        for name, before, after in rows
    ]


def number(value: float | None) -> str:
    """A metric's value; empty where there is none."""
    return "" if value is None else f"{value:.4f}"


def _signed(gain: float) -> str:
    """A difference, and where it points: every metric is better when it is higher."""
    return f"{gain:+.4f} {'=' if abs(gain) < 5e-5 else '↑' if gain > 0 else '↓'}"


def show_evaluation(result: dict[str, Any], main: list[str], as_json: bool) -> None:
    """Metrics of a model, the main ones first, beside those of another; then what the gate says."""
    metrics = result["metrics"]
    order = [*(name for name in main if name in metrics), *(name for name in metrics if name not in main)]
    header, rows = ["metric", "value"], [[name, number(metrics[name])] for name in order]
    if "compare" in result:
        both = result["compare"]["metrics"]
        header = ["metric", "value", "other", "gain", "95 % interval", "verdict"]
        rows = [[name, *_comparison_cells(both[name])] for name in order if name in both]
    gate = [_gate_cells(line) for line in result.get("gate", [])]
    other = f" and {result['compare']['model']}" if "compare" in result else ""
    add_to_summary(f"stfit eval: {result['model']}{other}", header, rows)
    if gate:
        add_to_summary("gate", GATE, gate)
    if as_json:
        show_json(result)
        return
    table(header, rows)
    if gate:
        sys.stdout.write("\n")
        table(GATE, gate)
    if "error" in result:
        sys.stderr.write(f"stfit: {result['error']['message']}\n")


GATE = ["gate", "value", "needed", ""]


def _comparison_cells(both: dict[str, Any]) -> list[str]:
    """Two models' values, the difference, its interval and the verdict."""
    interval = "" if both["low"] is None else f"{both['low']:+.4f} to {both['high']:+.4f}"
    return [number(both["value"]), number(both["other"]), _signed(both["gain"]), interval, both["verdict"] or ""]


def _gate_cells(line: dict[str, Any]) -> list[str]:
    """One line of a gate: what is asked, what is there, and whether it passes."""
    asked = line["metric"] + (f" against {line['against']}" if line["against"] else "")
    says = f"skipped: {line['note']}" if line["passed"] is None else "passed" if line["passed"] else "NOT PASSED"
    return [asked, number(line["value"]), number(line["limit"]), says]


def show_report(result: dict[str, Any], as_json: bool) -> None:
    """Where the page is."""
    if as_json:
        show_json(result)
    else:
        sys.stdout.write(f"{result['output']}: written\n")


def show_runs(found: list[dict[str, Any]], as_json: bool) -> None:
    """A run a line."""
    if as_json:
        show_json({"runs": found})
        return
    header = ["run", "state", "metric", "before", "after", "verdict", "date", "recipe"]
    rows = [
        [
            each["run"],
            each["state"],
            each["metric"] or "",
            number(each["before"]),
            number(each["after"]),
            each["verdict"] or "",
            each["date"],
            each["recipe"],
        ]
        for each in found
    ]
    table(header, rows, words=["state", "metric", "verdict", "date", "recipe"]) if rows else say("no run is there yet")


def show_encoding(events: Iterable[Encoded | dict[str, Any]], as_json: bool) -> None:
    """Follow an encoding to its end."""
    line = LiveLine()
    try:
        for event in events:
            if isinstance(event, dict):
                result = event
            else:
                line.show(f"{event.rows} rows  {event.rows_per_second:.0f} rows/s", event.share)
    finally:
        line.close()
    if as_json:
        show_json(result)
        return
    resumed = f" ({result['resumed_rows']} were there)" if result["resumed_rows"] else ""
    size = f"{result['rows']} embeddings of {result['embedding_dim']}{resumed}"
    fast = (
        "" if result["cosine_to_float32"] is None else f", cosine to float32 {result['cosine_to_float32']:.5f} or more"
    )
    sys.stdout.write(f"{result['output']}: {size} at {result['rows_per_second']:.0f} rows/s{fast}\n")


def show_export(result: dict[str, Any], as_json: bool) -> None:
    """Each graph beside stfit's own encoding."""
    if as_json:
        show_json(result)
        return
    sys.stdout.write(f"{result['output']}: compared on {result['compared']} texts ({result['compared_on']})\n")
    sys.stdout.write(f"  stfit encode: {result['rows_per_second']:.0f} texts/s\n")
    for graph in result["files"]:
        sys.stdout.write(
            f"  {graph['file']}, {graph['mib']:.1f} MiB: {graph['rows_per_second']:.0f} texts/s, "
            f"difference at most {graph['largest_difference']:.1e}, cosine {graph['mean_cosine']:.5f} "
            f"(lowest {graph['lowest_cosine']:.5f})\n"
        )


def show_similar(result: dict[str, Any], as_json: bool) -> None:
    """Each query with its nearest texts under it."""
    if as_json:
        show_json(result)
        return
    for found in result["queries"]:
        sys.stdout.write(f"\n{found['query']}\n")
        for near in found["nearest"]:
            sys.stdout.write(f"  {near['similarity']:.3f}  {near['text']}\n")


def show_pairs(result: dict[str, Any], as_json: bool) -> None:
    """Pairs of texts, the closest first."""
    if as_json:
        show_json(result)
        return
    for pair in result["pairs"]:
        sys.stdout.write(f"\n{pair['similarity']:.3f}  {pair['text1']}\n       {pair['text2']}\n")
    took = f"{result['seconds_encoding']:.1f} s to embed, {result['seconds_comparing']:.1f} s to compare"
    say(f"{result['texts']} distinct texts: {took}")


def show_mined(result: dict[str, Any], as_json: bool) -> None:
    """How many negatives there are, and how to train on them."""
    if as_json:
        show_json(result)
        return
    means = f"mean cosine {result['mean_negative_score']:.3f}, of the positives {result['mean_positive_score']:.3f}"
    left_out = f"; {result['rows_without']} rows have none and are left out" if result["rows_without"] else ""
    sys.stdout.write(
        f"{result['output']}: {result['negatives']} negatives in {result['rows']} rows ({means}){left_out}\n"
    )
    sys.stdout.write(f"Next, in a recipe beside it: {result['data']}\n")


def show_check(result: dict[str, Any], as_json: bool) -> None:
    """What the model will see, what the run will take, and last what is wrong: there it is in sight."""
    if not as_json:
        for number, sample in enumerate(result.get("samples", []), start=1):
            sys.stdout.write(f"example {number}\n" + "".join(f"  {role}: {text}\n" for role, text in sample.items()))
        if "steps" in result:
            sys.stdout.write(_forecast_of(result))
        sys.stdout.flush()
    for kind in ("warning", "error"):
        for problem in result[f"{kind}s"]:
            sys.stderr.write(f"{kind}[{problem.code}]: {problem}\n")
    if as_json:
        show_json(result | {kind: [_described(problem) for problem in result[kind]] for kind in ("errors", "warnings")})
        return
    numbers = {kind: len(result[f"{kind}s"]) for kind in ("error", "warning")}
    counts = [f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in numbers.items()]
    sys.stdout.write(f"{'wrong' if result['errors'] else 'ok'}: {', '.join(counts)}\n")


def show_push(result: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    """What the gate says, what changes, and which commit holds the model."""
    gate = [_gate_cells(line) for line in result.get("gate", [])]
    did = "published" if result["changed"] else "not published" if "error" in result else "nothing to do"
    add_to_summary(f"stfit push: {result['repo']}", GATE, gate, f"{did}; commit {result['commit']}")
    if as_json:
        show_json(result)
        return
    if gate:
        table(GATE, gate)
    if "error" in result:
        sys.stderr.write(f"stfit: {result['error']['message']}\n")
        return
    if dry_run:
        sys.stdout.write("".join(f"would add     {path}\n" for path in result["add"]))
        sys.stdout.write("".join(f"would delete  {path}\n" for path in result["delete"]))
        return
    tagged = f", tagged {result['tag']}" if result.get("tag") else ""
    sys.stdout.write(f"{result['pull_request'] or result['repo']}: {did}, commit {result['commit']}{tagged}\n")


def _described(problem: Problem) -> dict[str, Any]:
    """A problem without its picture of the line, and how it was found."""
    return {key: value for key, value in vars(problem).items() if key not in ("snippet", "key")}


def _forecast_of(result: dict[str, Any]) -> str:
    """Rows, steps, lengths and memory, a line each."""
    lengths = ", ".join(f"{name} {value}" for name, value in result["lengths"].items())
    memory = f", about {result['memory_mib']} MiB of memory" if result["memory_mib"] else ""
    objectives = [
        f"  {each['share']:.0%} of the batches: {each['loss']} on {each['rows']} examples of {each['dataset']}\n"
        for each in result["objectives"]
    ]
    limit = result["max_seq_length"]
    cut = f"; cut at {limit}" if limit else ""
    return (
        f"{result['rows']} examples ({result['looked_at']})\n"
        f"{''.join(objectives if len(objectives) > 1 else [])}"
        f"{result['steps']} steps, {result['tokens']} tokens{memory}\n"
        f"lengths in {result['counted']}: {lengths}{cut}\n"
    )
