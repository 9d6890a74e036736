"""The report of a run, one page for people: what was trained on what, whether it helped, and where to look next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stfit.publish.card import duration, number
from stfit.report import figures, html
from stfit.report.run_summary import MOMENTS, PARTS, MetricDelta, RunSummary

MOST_EXAMPLES = 10

Section = tuple[str, str, str] | None


def report_page(told: RunSummary) -> str:
    """The report of one run, as HTML that needs nothing else."""
    with figures.drawing():
        return html.page(
            f"Run {told.name}",
            _lead_of(told),
            [
                html.section("verdict", "Before and after", _verdict_table(told)),
                html.section(
                    "data", "What was trained on what", html.facts(_escaped(told.made_of)), _warnings_of(told)
                ),
                html.section("curves", "Training", *_training_figures(told)),
                html.section("similarities", "Similarities", *_similarity_figures(told)),
                html.section("map", "Map of the embeddings", *_map_figures(told)),
                html.section("examples", "Examples", *_example_tables(told)),
                html.section("neighbours", "Nearest neighbours", *_neighbour_tables(told)),
                html.section("lengths", "Lengths", *_length_figure(told)),
                html.section("cost", "Time and memory", *_cost_of(told)),
                _recipe_section(told),
            ],
        )


def _escaped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Names with their values as HTML."""
    return [(name, html.text(value)) for name, value in pairs]


def _lead_of(told: RunSummary) -> str:
    """What came of it, in a sentence for each evaluator."""
    said = [f"<p>{html.text(told.state)}, {html.text(told.date)}</p>"]
    for name, gain in told.gains.items():
        said.append(
            f'<p class="lead"><strong>{html.text(name)}</strong>: {number(gain.other)} → {number(gain.value)}, '
            f"{html.text(_in_words(gain))}</p>"
        )
    return "\n".join(said)


def _in_words(gain: MetricDelta) -> str:
    """What a gain is worth."""
    if gain.verdict is None:
        return f"{gain.gain:+.4f}"
    meaning = {
        "better": "better than before",
        "worse": "worse than before",
        "no evidence": "which may be the luck of the rows it was measured on",
    }
    return f"{gain.gain:+.4f} ({_interval_of(gain)}): {meaning[gain.verdict]}"


def _interval_of(gain: MetricDelta) -> str:
    """The 95 % interval of a gain."""
    return "" if gain.low is None else f"95 % interval {gain.low:+.4f} to {gain.high:+.4f}"


def _verdict_table(told: RunSummary) -> str:
    """Every metric before and after, the main ones first."""
    gains = told.gains
    names = [*told.main, *(name for name in {**told.before, **told.after} if name not in told.main)]
    rows = []
    for name in names:
        before, after, gain = told.before.get(name), told.after.get(name), gains.get(name)
        change = "" if before is None or after is None else f"{after - before:+.4f}"
        between = "" if gain is None or gain.low is None else f"{gain.low:+.4f} to {gain.high:+.4f}"
        verdict = (gain.verdict or "") if gain else ""
        rows.append([html.text(name), number(before), number(after), change, between, verdict])
    if not rows:
        return "<p>This run was not measured: its recipe has no <code>eval</code> list.</p>"
    caption = "Metrics; higher is better. Intervals, of main metrics: paired bootstrap over the rows of each evaluator"
    return html.table(caption, ["metric", "before", "after", "gain", "95 % interval", "verdict"], rows)


def _warnings_of(told: RunSummary) -> str:
    """What the check had to say, and what went wrong on the way."""
    found = told.record.get("warnings", [])
    if not found:
        return ""
    shown = [f'<p class="warning">{html.text(each["message"])} ({html.text(each["code"])})</p>' for each in found]
    return "\n".join(["<h3>Warnings</h3>", *shown])


def _training_figures(told: RunSummary) -> Iterator[str]:
    """Loss, learning rate, and each main metric over the steps."""
    steps, losses = told.losses()
    if len(steps) > 1:
        panels = {"Loss": {"loss": (steps, losses)}, "Learning rate": {"rate": told.steps("learning_rate")}}
        label = f"Training loss from {losses[0]:.4g} at step {steps[0]} to {losses[-1]:.4g} at step {steps[-1]}"
        svg = figures.draw_curves("loss", label, panels, "step", ["loss", "learning rate"])
        yield html.figure(svg, f"{label}, of batches that are at least half full; learning rate of each step")
    curves = dict(list(told.curves().items())[: figures.MOST_PANELS])
    if curves:
        label = "Metrics over the steps: " + "; ".join(
            f"{name} from {values[0]:.4f} to {values[-1]:.4f}" for name, (_, values) in curves.items()
        )
        panels = {name: {name: curve} for name, curve in curves.items()}
        yield html.figure(figures.draw_curves("metrics", label, panels, "step", ["value"] * len(panels)), label)


def _similarity_figures(told: RunSummary) -> Iterator[str]:
    """How similar the model finds texts that belong together, and others, before and after."""
    for position, (name, _, looks) in enumerate(told.seen()):
        panels = {
            moment: {kind: look[f"{kind}"] for kind in ("positive", "negative") if look[kind]}
            for moment, look in looks.items()
        }
        if not panels or not all(panels.values()):
            continue
        kind = next(iter(looks.values()))["similarity"]
        means = [
            f"{moment}: mean of the {which} pairs {sum(values) / len(values):.3f}"
            for moment, kinds in panels.items()
            for which, values in kinds.items()
        ]
        label = f"{name}: {kind} similarity of positive and negative pairs; {'; '.join(means)}"
        yield html.figure(figures.draw_histograms(f"similar{position}", label, panels, f"{kind} similarity"), label)


def _map_figures(told: RunSummary) -> Iterator[str]:
    """Labelled texts in two dimensions."""
    for position, (name, sample, looks) in enumerate(told.seen()):
        panels = {moment: look["map"] for moment, look in looks.items() if look["map"]}
        if panels:
            label = f"{name}: {len(sample['left'])} texts by their two principal components, marked by their class"
            yield html.figure(figures.draw_maps(f"map{position}", label, panels, sample["labels"]), label)


def _example_tables(told: RunSummary) -> Iterator[str]:
    """The texts that the model gets most wrong now, and those that it gets most right since."""
    for name, sample, looks in told.seen():
        if set(looks) != set(MOMENTS.values()):
            continue
        before, after = looks["before"], looks["after"]
        pairs = zip(before["score"], after["score"], strict=True)
        known = [row for row, scores in enumerate(pairs) if None not in scores]
        if not known:
            continue
        worst = sorted(known, key=lambda row: (after["score"][row], row))[:MOST_EXAMPLES]
        gain = {row: after["score"][row] - before["score"][row] for row in known}
        improved = [row for row in sorted(known, key=lambda row: (-gain[row], row))[:MOST_EXAMPLES] if gain[row] > 0]
        yield f"<p>{html.text(name)}: {html.text(_meaning_of_score(sample))}</p>"
        yield _example_table(f"{name}: the worst after training", sample, before, after, worst)
        if improved:
            yield _example_table(f"{name}: the most improved", sample, before, after, improved)


def _meaning_of_score(sample: dict[str, Any]) -> str:
    """What the score of an example says."""
    if sample["gold"] is not None:
        return "an example's score is 1 where its rank by similarity is its rank by gold score, and 0 at the worst"
    return "an example's score is the similarity of the nearest text that belongs to it, less that of the nearest other"


def _example_table(
    caption: str, sample: dict[str, Any], before: dict[str, Any], after: dict[str, Any], rows: list[int]
) -> str:
    """Examples as texts, with their scores."""
    gold = sample["gold"]
    if gold is not None:
        header = ["before", "after", "gold", "text", "other text"]
    else:
        header = ["before", "after", "text", "nearest that belongs to it", "nearest other"]
    cells = []
    for row in rows:
        scores = [f"{look['score'][row]:+.3f}" for look in (before, after)]
        if gold is not None:
            texts = [
                f"{gold[row]:g}",
                html.text(sample["left"][row]),
                html.text(sample["right"][sample["beside"][row]]),
            ]
        else:
            near = [after[kind][row] for kind in ("positives", "negatives")]
            others = ["" if at is None else html.text(sample["right"][at]) for at in near]
            texts = [html.text(sample["left"][row]), *others]
        cells.append([*scores, *texts])
    return html.table(caption, header, cells, numbers=False)


def _neighbour_tables(told: RunSummary) -> Iterator[str]:
    """What a few texts find among the other texts of the sample."""
    for name, sample, looks in told.seen():
        if not looks:
            continue
        found = {moment: [_listed(sample, near) for near in look["nearest"]] for moment, look in looks.items()}
        rows = [[html.text(sample["left"][row]), *cells] for row, cells in enumerate(zip(*found.values(), strict=True))]
        caption = (
            f"{name}: the nearest of {len(sample['right'])} texts; ✓ belongs together, ✗ does not, unmarked: not said"
        )
        yield html.table(caption, ["text", *found], rows, numbers=False)


def _listed(sample: dict[str, Any], near: list[list[Any]]) -> str:
    """Neighbours, the nearest first."""
    marks = {1: " ✓", -1: " ✗", 0: ""}
    shown = [f"{similarity:.3f} {html.text(sample['right'][at])}{marks[relation]}" for at, similarity, relation in near]
    return "<br>".join(shown)


def _length_figure(told: RunSummary) -> Iterator[str]:
    """How long the texts are, and where they are cut."""
    lengths = told.record.get("lengths")
    if not lengths or not lengths["tokens"]:
        return
    tokens, texts, limit = lengths["tokens"], lengths["texts"], lengths["limit"]
    full = sum(count for length, count in zip(tokens, texts, strict=True) if limit is not None and length >= limit)
    cut = "" if limit is None else f"; {full} of {sum(texts)} fill max_seq_length {limit}, what goes beyond is cut"
    label = f"Lengths of the {sum(texts)} distinct training texts, at most {max(tokens)} tokens{cut}"
    yield html.figure(figures.draw_lengths("lengths-figure", label, tokens, texts, limit), label)


def _cost_of(told: RunSummary) -> Iterator[str]:
    """Where the time went, and what the machine gave."""
    seconds = {part: told.seconds[part] for part in PARTS if part in told.seconds}
    total = sum(seconds.values())
    if total > 0:
        label = f"{duration(total)} in all: " + ", ".join(f"{part} {value:.1f} s" for part, value in seconds.items())
        yield html.figure(figures.draw_shares("seconds", label, seconds), label)
    if told.machine:
        yield html.facts(_escaped(told.machine))


def _recipe_section(told: RunSummary) -> Section:
    """The whole recipe and the lock."""
    return html.section(
        "recipe",
        "Recipe and lock",
        "<h3>resolved.yaml</h3>",
        html.lines(told.resolved, "resolved.yaml"),
        "<h3>stfit.lock</h3>",
        html.lines(told.lock, "stfit.lock"),
    )
