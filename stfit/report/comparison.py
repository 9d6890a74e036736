"""Several runs side by side, on one HTML page."""

from collections.abc import Iterator, Sequence
from typing import Any

from stfit.report.figures import MAX_PANELS, Picture, draw_curves, figure_style
from stfit.report.render import render
from stfit.report.run_summary import PHASES, RunSummary, loss_curve


def comparison_page(runs: Sequence[RunSummary], gains: Sequence[dict[str, Any]]) -> str:
    """Render several runs side by side. `gains`: for each run, the gains of its metrics over those of the first run."""
    main = [name for run in runs for name in run.main]
    compared = list(zip(runs[1:], gains[1:], strict=True))
    first = runs[0].name
    with figure_style():
        return render(
            "comparison.html.jinja",
            runs=runs,
            compared=compared,
            metrics=list(dict.fromkeys([*main, *(name for run in runs for name in run.after)])),
            metric_header=[
                "metric",
                first,
                *(title for run, _ in compared for title in (run.name, f"gain over {first}")),
            ],
            differences=_differences(runs),
            curves=list(_curves(runs)),
            costs=_costs(runs),
        )


def _differences(runs: Sequence[RunSummary]) -> dict[str, list[str]]:
    keys = dict.fromkeys(key for run in runs for key in run.recipe if key != "name")
    values = {key: [str(run.recipe.get(key, "")) for run in runs] for key in keys}
    return {key: of_runs for key, of_runs in values.items() if len(set(of_runs)) > 1}


def _curves(runs: Sequence[RunSummary]) -> Iterator[Picture]:
    metrics = list(dict.fromkeys(name for run in runs for name in run.main))[: MAX_PANELS - 1]
    curves = {run.name: {"Loss": loss_curve(run.log)} | run.metric_curves() for run in runs}
    panels = {
        title: {name: of_run[title] for name, of_run in curves.items() if title in of_run and of_run[title][0]}
        for title in ["Loss", *metrics]
    }
    panels = {title: lines for title, lines in panels.items() if lines}
    if panels:
        units = ["loss" if title == "Loss" else "value" for title in panels]
        caption = f"Over the steps of each run: {', '.join(panels)}"
        yield draw_curves("curves-figure", caption, panels, units, list(curves))


def _costs(runs: Sequence[RunSummary]) -> dict[str, list[str]]:
    facts = [
        {phase: f"{run.seconds[phase]:.1f} s" for phase in PHASES if phase in run.seconds} | dict(run.machine)
        for run in runs
    ]
    names = [*PHASES, *(name for run in runs for name, _ in run.machine)]
    return {
        name: [of_run.get(name, "") for of_run in facts] for name in names if any(name in of_run for of_run in facts)
    }
