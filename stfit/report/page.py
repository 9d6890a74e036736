"""The report of a run, as one HTML page: inputs, metrics before and after, curves, examples and cost."""

from collections.abc import Iterator
from typing import Any

from stfit.io.display import format_duration
from stfit.report.figures import (
    MAX_PANELS,
    Picture,
    draw_curves,
    draw_dots,
    draw_histograms,
    draw_lengths,
    figure_style,
)
from stfit.report.render import render
from stfit.report.run_summary import PHASES, STAGE_TITLES, RunSummary, loss_curve, term_curves

MAX_EXAMPLES = 10
MAX_SLICES = 40


def report_page(run: RunSummary) -> str:
    with figure_style():
        return render(
            "report.html.jinja",
            run=run,
            metrics=list(dict.fromkeys([*run.main, *run.before, *run.after])),
            training_figures=list(_training_figures(run)),
            slice_figures=list(_slice_figures(run)),
            similarity_figures=list(_similarity_figures(run)),
            examples=list(_examples(run)),
            neighbors=list(_neighbors(run)),
            length_figures=list(_length_figures(run)),
            costs=list(_costs(run)),
        )


def _costs(run: RunSummary) -> Iterator[tuple[str, str]]:
    yield from ((phase, format_duration(run.seconds[phase])) for phase in PHASES if phase in run.seconds)
    yield from run.costs.items()
    if "hardware" in run.machine:
        yield "hardware", run.machine["hardware"]


def _training_figures(run: RunSummary) -> Iterator[Picture]:
    steps, losses = loss_curve(run.log)
    if len(steps) > 1:
        caption = (
            f"Training loss from {losses[0]:.4g} at step {steps[0]} to {losses[-1]:.4g} at step {steps[-1]}, of "
            "batches that are at least half full; learning rate of each step"
        )
        terms = {name: curve for name, curve in term_curves(run.log).items() if curve[0]}
        if terms:
            caption += "; the parts of the sum that is the loss"
        curves = {"Loss": (steps, losses)} | terms | {"Learning rate": run.learning_rates()}
        panels = {title: [(0, curve)] for title, curve in curves.items()}
        yield draw_curves("loss", caption, panels, ["loss"] * (1 + len(terms)) + ["learning rate"])
    curves = dict(list(run.metric_curves().items())[:MAX_PANELS])
    if curves:
        ends = [f"{name} from {values[0]:.4f} to {values[-1]:.4f}" for name, (_, values) in curves.items()]
        panels = {name: [(0, curve)] for name, curve in curves.items()}
        yield draw_curves("metrics", f"Metrics over the steps: {'; '.join(ends)}", panels, ["value"] * len(panels))


def _slice_figures(run: RunSummary) -> Iterator[Picture]:
    stages = run.record.get("slices", {})
    for position, (metric, last) in enumerate(stages.get("end", stages.get("start", {})).items()):
        names = sorted(last, key=lambda name: last[name]["value"])[:MAX_SLICES]
        kinds = {
            title: [stages[stage][metric][name] for name in names]
            for stage, title in STAGE_TITLES.items()
            if stages.get(stage, {}).get(metric, {}).keys() >= set(names)
        }
        shown = "" if len(names) == len(last) else f"the {len(names)} lowest of {len(last)} "
        values = ", ".join(f"{name} {last[name]['value']:.4f} of {last[name]['rows']} rows" for name in names)
        caption = f"{metric} of {shown}slices with 95% intervals, the lowest first: {values}"
        yield draw_dots(f"slices{position}", caption, metric, names, kinds)


def _similarity_figures(run: RunSummary) -> Iterator[Picture]:
    for position, (name, _, snapshots) in enumerate(run.snapshots()):
        panels = {
            title: {kind: snapshot[kind] for kind in ("positive", "negative") if snapshot[kind]}
            for title, snapshot in snapshots.items()
        }
        if not panels or not all(panels.values()):
            continue
        similarity = next(iter(snapshots.values()))["similarity"]
        means = [
            f"{title}: mean of the {kind} pairs {sum(values) / len(values):.3f}"
            for title, kinds in panels.items()
            for kind, values in kinds.items()
        ]
        caption = f"{name}: {similarity} similarity of positive and negative pairs; {'; '.join(means)}"
        yield draw_histograms(f"similar{position}", caption, panels, f"{similarity} similarity")


def _examples(run: RunSummary) -> Iterator[tuple[str, bool, dict[str, list[list[str]]]]]:
    """Name of a sample, whether it has gold scores, and its tables: title -> cells of each row."""
    for name, sample, snapshots in run.snapshots():
        if set(snapshots) != set(STAGE_TITLES.values()):
            continue
        before, after = snapshots["before"]["score"], snapshots["after"]["score"]
        scored = [row for row in range(len(after)) if before[row] is not None and after[row] is not None]
        worst = sorted(scored, key=lambda row: (after[row], row))
        improved = sorted((row for row in scored if after[row] > before[row]), key=lambda row: before[row] - after[row])
        cells = {
            row: [f"{before[row]:+.3f}", f"{after[row]:+.3f}", *_example_texts(sample, snapshots["after"], row)]
            for row in {*worst[:MAX_EXAMPLES], *improved[:MAX_EXAMPLES]}
        }
        tables = {"lowest scores after training": worst, "most improved": improved}
        if scored:
            cells_of_table = {title: [cells[row] for row in rows[:MAX_EXAMPLES]] for title, rows in tables.items()}
            yield name, sample["gold"] is not None, cells_of_table


def _example_texts(sample: dict[str, Any], after: dict[str, Any], row: int) -> list[str]:
    if sample["gold"] is not None:
        return [f"{sample['gold'][row]:g}", sample["left"][row], sample["right"][sample["beside"][row]]]
    nearest = [after[kind][row] for kind in ("positives", "negatives")]
    return [sample["left"][row], *("" if index is None else sample["right"][index] for index in nearest)]


def _neighbors(run: RunSummary) -> Iterator[tuple[str, list[str], list[Any]]]:
    """Caption, header and rows of each table of nearest neighbors; a row is a text and a column for each stage."""
    for name, sample, snapshots in run.snapshots():
        if not snapshots:
            continue
        columns = [
            [
                [(similarity, sample["right"][index], relation) for index, similarity, relation in neighbors]
                for neighbors in snapshot["nearest"]
            ]
            for snapshot in snapshots.values()
        ]
        caption = f"{name}: nearest of {len(sample['right'])} texts; ✓ belongs together, ✗ does not, unmarked: unknown"
        yield caption, ["text", *snapshots], list(zip(sample["left"], zip(*columns, strict=True), strict=False))


def _length_figures(run: RunSummary) -> Iterator[Picture]:
    lengths = run.record.get("lengths")
    if not lengths or not lengths["tokens"]:
        return
    tokens, texts, limit = lengths["tokens"], lengths["texts"], lengths["limit"]
    caption = f"Lengths of the {sum(texts)} distinct training texts, at most {max(tokens)} tokens"
    if limit is not None:
        full = sum(count for length, count in zip(tokens, texts, strict=True) if length >= limit)
        caption += f"; {full} of {sum(texts)} reach max_seq_length {limit}, longer ones are truncated"
    yield draw_lengths("lengths-figure", caption, tokens, texts, limit)
