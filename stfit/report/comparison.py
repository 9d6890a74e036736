"""Several runs side by side, on one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stfit.publish.card import number
from stfit.report import figures, html
from stfit.report.run_summary import PARTS, MetricDelta, RunSummary


def comparison_page(runs: Sequence[RunSummary], gains: Sequence[dict[str, MetricDelta]]) -> str:
    """Several runs side by side. `gains`: for each run, what its metrics gain over the first one's."""
    names = ", ".join(told.name for told in runs)
    with figures.drawing():
        return html.page(
            f"Runs {names}",
            "\n".join(
                f"<p><strong>{html.text(told.name)}</strong>: {html.text(told.state)}, {html.text(told.date)}</p>"
                for told in runs
            ),
            [
                html.section("metrics", "Metrics", _metrics_side_by_side(runs, gains)),
                html.section("recipes", "What differs in their recipes", _differences_of(runs)),
                html.section("curves", "Curves", *_curves_over_one_another(runs)),
                html.section("cost", "Time and memory", _costs_side_by_side(runs)),
            ],
        )


def _metrics_side_by_side(runs: Sequence[RunSummary], gains: Sequence[dict[str, MetricDelta]]) -> str:
    """Every metric at the end, and what the later runs gain over the first."""
    first = runs[0]
    main = dict.fromkeys(name for told in runs for name in told.main)
    names = [*main, *dict.fromkeys(name for told in runs for name in told.after if name not in main)]
    rows = []
    for name in names:
        cells = [number(first.after.get(name))]
        for told, of_run in list(zip(runs, gains, strict=True))[1:]:
            cells += [number(told.after.get(name)), _gain_cell(of_run.get(name))]
        rows.append([html.text(name), *cells])
    header = ["metric", html.text(first.name)]
    for told in runs[1:]:
        header += [html.text(told.name), f"gain over {html.text(first.name)}"]
    caption = "Metrics at the end; higher is better. Intervals of 95 % where both were measured on the same rows"
    return html.table(caption, header, rows) if rows else ""


def _gain_cell(gain: MetricDelta | None) -> str:
    """What a run gains over the first."""
    if gain is None:
        return ""
    if gain.verdict is None:
        return f"{gain.gain:+.4f}"
    return f"{gain.gain:+.4f}<br>({gain.low:+.4f} to {gain.high:+.4f})<br>{gain.verdict}"


def _differences_of(runs: Sequence[RunSummary]) -> str:
    """Keys whose values are not the same in all recipes."""
    keys = dict.fromkeys(key for told in runs for key in told.recipe if key != "name")
    rows = [
        [html.text(key), *(html.text(told.recipe.get(key, "")) for told in runs)]
        for key in keys
        if len({told.recipe.get(key, "") for told in runs}) > 1
    ]
    if not rows:
        return "<p>Nothing: the recipes are the same.</p>"
    return html.table("Keys of the recipes", ["key", *(html.text(told.name) for told in runs)], rows, numbers=False)


def _curves_over_one_another(runs: Sequence[RunSummary]) -> Iterator[str]:
    """Loss and main metrics of all runs."""
    lines = {told.name: told.losses() for told in runs}
    panels = {"Loss": {name: curve for name, curve in lines.items() if curve[0]}}
    for metric in list(dict.fromkeys(name for told in runs for name in told.main))[: figures.MOST_PANELS - 1]:
        panels[metric] = {told.name: told.curves()[metric] for told in runs if metric in told.curves()}
    panels = {title: curves for title, curves in panels.items() if curves}
    if panels:
        label = f"Over the steps of each run: {', '.join(panels)}"
        heights = ["loss" if title == "Loss" else "value" for title in panels]
        yield html.figure(figures.draw_curves("curves-figure", label, panels, "step", heights, list(lines)), label)


def _costs_side_by_side(runs: Sequence[RunSummary]) -> str:
    """Seconds and the machine of each run."""
    machines = [dict(told.machine) for told in runs]
    rows = [
        [part, *(f"{told.seconds[part]:.1f} s" if part in told.seconds else "" for told in runs)]
        for part in PARTS
        if any(part in told.seconds for told in runs)
    ]
    rows += [
        [html.text(name), *(html.text(machine.get(name, "")) for machine in machines)]
        for name in dict.fromkeys(name for machine in machines for name in machine)
    ]
    return html.table("Where the time went", ["part", *(html.text(told.name) for told in runs)], rows)
