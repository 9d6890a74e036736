"""Several runs side by side, on one HTML page.

Runs that differ in one key or two are named by it, and those that differ in their seed only are a group: their mean and
spread tell a better setting from a lucky seed.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import Any, NamedTuple

from stfit.io.display import format_gain, format_interval, format_metric, format_verdict
from stfit.report.figures import MAX_PANELS, Picture, draw_curves, figure_style
from stfit.report.render import render
from stfit.report.run_summary import PHASES, RunSummary, interleave_evaluators, loss_curve

Differences = dict[str, list[str]]
"""Key or package -> its value in each run, for those whose values differ."""

MAX_NAMING_KEYS = 2
MAX_COLUMNS = 5
"""Metrics in one table: a page of 1200 pixels has no room for more."""


class Group(NamedTuple):
    """Runs whose recipes differ in their seed only."""

    title: str
    positions: list[int]


class Row(NamedTuple):
    """A row of the metric table: a run, or the mean of a group."""

    title: str
    note: str
    is_mean: bool
    cells: Sequence[list[str]]
    """The lines of each cell: a value, its gain and the interval of it; or a mean, its spread and its gain."""


def comparison_page(runs: Sequence[RunSummary], gains: Sequence[dict[str, Any]], baseline: int) -> str:
    """Render several runs side by side. `gains`: for each run, the gains of its metrics over those of the baseline."""
    differences = _differences([run.recipe for run in runs])
    groups = _group_runs(runs, differences)
    main = list(dict.fromkeys(name for run in runs for name in run.main))
    others = list(dict.fromkeys(name for run in runs for name in run.after if name not in main))
    rows_of = partial(_metric_rows, runs, gains, baseline, groups)
    with figure_style():
        return render(
            "comparison.html.jinja",
            runs=runs,
            against=runs[baseline].name,
            has_means=any(len(group.positions) > 1 for group in groups),
            main_tables=[(metrics, rows_of(metrics)) for metrics in _split(main)],
            other_tables=[(metrics, rows_of(metrics)) for metrics in _split(others)],
            differences=differences,
            curves=list(_curves(runs, groups, main)),
            costs=_costs(runs),
            machine=_machine(runs),
            machine_differences=_differences([run.machine for run in runs]),
        )


def _split(metrics: list[str]) -> list[list[str]]:
    return [metrics[start : start + MAX_COLUMNS] for start in range(0, len(metrics), MAX_COLUMNS)]


def _differences(values: Sequence[dict[str, Any]]) -> Differences:
    keys = dict.fromkeys(key for of_run in values for key in of_run if key != "name")
    by_key = {key: [str(of_run.get(key, "")) for of_run in values] for key in keys}
    return {key: of_runs for key, of_runs in by_key.items() if len(set(of_runs)) > 1}


def _group_runs(runs: Sequence[RunSummary], differences: Differences) -> list[Group]:
    settings = {key: of_runs for key, of_runs in differences.items() if key != "seed"}
    groups: dict[tuple[str, ...], list[int]] = {}
    for position in range(len(runs)):
        groups.setdefault(tuple(of_runs[position] for of_runs in settings.values()), []).append(position)
    if 1 <= len(settings) <= MAX_NAMING_KEYS:
        titles = [", ".join(map(": ".join, zip(settings, values, strict=True))) for values in groups]
    else:
        titles = [", ".join(runs[position].name for position in positions) for positions in groups.values()]
    return list(map(Group, titles, groups.values()))


def _metric_rows(
    runs: Sequence[RunSummary],
    gains: Sequence[dict[str, Any]],
    baseline: int,
    groups: Sequence[Group],
    metrics: Sequence[str],
) -> list[Row]:
    columns = [list(_metric_column(runs, gains, baseline, groups, metric)) for metric in metrics]
    titles = [title for group in groups for title in _row_titles(group, runs)]
    return [Row(*title, cells) for title, cells in zip(titles, zip(*columns, strict=True), strict=True)]


def _row_titles(group: Group, runs: Sequence[RunSummary]) -> Iterator[tuple[str, str, bool]]:
    """Title, note, and whether the row is a mean."""
    of_group = [runs[position] for position in group.positions]
    if len(of_group) == 1:
        yield group.title, of_group[0].name if of_group[0].name != group.title else "", False
        return
    yield group.title, f"mean of {len(of_group)} runs", True
    for run in of_group:
        yield run.name, f"seed: {run.recipe.get('seed', '')}", False


def _metric_column(
    runs: Sequence[RunSummary], gains: Sequence[dict[str, Any]], baseline: int, groups: Sequence[Group], metric: str
) -> Iterator[list[str]]:
    """The cells of a metric, in the order of the rows."""
    values = [run.after.get(metric) for run in runs]
    found = [of_run.get(metric) for of_run in gains]
    reference = next(group.positions for group in groups if baseline in group.positions)
    for group in groups:
        if len(group.positions) > 1:
            others = [] if group.positions == reference else [values[position] for position in reference]
            is_comparable = all(found[position] for position in [*group.positions, *reference])
            yield _mean_cell([values[position] for position in group.positions], others, is_comparable)
        for position in group.positions:
            yield _run_cell(values[position], None if position == baseline else values[baseline], found[position])


def _run_cell(value: float | None, other: float | None, gain: dict[str, Any] | None) -> list[str]:
    if value is None or other is None:
        return [format_metric(value)]
    if gain is None:
        return [format_metric(value), "other rows"]
    change = f"{format_gain(gain['gain'])} {format_verdict(gain['verdict'])}".rstrip()
    return [format_metric(value), change, format_interval(gain["low"], gain["high"])]


def _mean_cell(values: Sequence[float | None], others: Sequence[float | None], is_comparable: bool) -> list[str]:
    """The mean of a group, its standard deviation, and its gain over the mean of the others."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return [""]
    shown = [format_metric(fmean(known)), f"± {format_metric(stdev(known))}"]
    compared = [value for value in others if value is not None]
    if not others or len(compared) < len(others):
        return shown
    return [*shown, format_gain(fmean(known) - fmean(compared)) if is_comparable else "other rows"]


def _curves(runs: Sequence[RunSummary], groups: Sequence[Group], main: Sequence[str]) -> Iterator[Picture]:
    """The runs of a group look the same, unless there is no other group."""
    looks = groups if len(groups) > 1 else [Group(run.name, [position]) for position, run in enumerate(runs)]
    by_look = [
        (number, {"Loss": loss_curve(runs[position].log)} | runs[position].metric_curves())
        for number, look in enumerate(looks)
        for position in look.positions
    ]
    panels = {
        title: [(number, curves[title]) for number, curves in by_look if title in curves and curves[title][0]]
        for title in ["Loss", *interleave_evaluators(main)[: MAX_PANELS - 1]]
    }
    panels = {title: curves for title, curves in panels.items() if curves}
    if panels:
        units = ["loss" if title == "Loss" else "value" for title in panels]
        caption = f"Over the steps of each run: {', '.join(panels)}"
        yield draw_curves("curves-figure", caption, panels, units, [look.title for look in looks])


def _costs(runs: Sequence[RunSummary]) -> list[list[str]]:
    """The header, and a row for each run."""
    facts = [
        {phase: f"{run.seconds[phase]:.1f} s" for phase in PHASES if phase in run.seconds} | run.costs for run in runs
    ]
    known = dict.fromkeys([*PHASES, *(name for of_run in facts for name in of_run)])
    names = [name for name in known if any(name in of_run for of_run in facts)]
    rows = [[run.name, *(of_run.get(name, "") for name in names)] for run, of_run in zip(runs, facts, strict=True)]
    return [["run", *names], *rows]


def _machine(runs: Sequence[RunSummary]) -> list[tuple[str, str]]:
    """Hardware and versions that all runs share."""
    shared = {
        name: value for name, value in runs[0].machine.items() if all(run.machine.get(name) == value for run in runs)
    }
    hardware = shared.pop("hardware", "")
    versions = ", ".join(f"{package} {version}" for package, version in shared.items())
    return [(name, value) for name, value in {"hardware": hardware, "versions": versions}.items() if value]
