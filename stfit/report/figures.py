"""The pictures of a report: SVG that is part of the page, takes the page's colours and is told apart in grey too."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, LINE = "#000001", "#000002"
SERIES = ["#000003", "#000004", "#000005", "#000006", "#000007", "#000008"]
COLOURS = {INK: "var(--ink)", LINE: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)
}
"""What a figure is drawn with -> what the page says it looks like, in the light and in the dark."""
DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))]
MARKERS = ["o", "s", "^", "D", "v", "P"]
HATCHES = ["", "///", "\\\\\\", "xx", "---", "|||"]
"""Lines only: dots make a page ten times as long."""
MOST_PANELS = 6
"""Plots next to one another in a figure."""

COLOURED = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "stfit",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "grid.alpha": 0.5,
    "hatch.linewidth": 0.6,
    "hatch.color": INK,
    **dict.fromkeys(COLOURED, INK),
}

Curve = tuple[Sequence[float], Sequence[float]]
"""x and y of a line."""


def _draw_panels(titles: Sequence[str], height: float = 2.4, columns: int = 2) -> tuple[Figure, list[Any]]:
    """A figure as wide as a page with a panel for each title."""
    from matplotlib.figure import Figure  # no pyplot: it would keep a state, and look for a display

    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(7.2, height * rows))
    figure.subplots_adjust(0.12, 0.21 / rows, 0.985, 1 - 0.12 / rows, wspace=0.35, hspace=0.55)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(title)
        panel.grid(color=LINE, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.yaxis.set_major_formatter("{x:.4g}")  # no common factor above the panel, where its title stands
    for empty in panels[len(titles) :]:
        empty.set_visible(False)
    return figure, panels[: len(titles)]


def _to_svg(figure: Figure, name: str, label: str) -> str:
    """A figure as an element of a page. `name` sets its ids apart from other figures', `label` says what it shows."""
    stream = StringIO()
    figure.savefig(stream, format="svg", transparent=True)
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", svg).replace("xlink:href", "href")
    for drawn, shown in COLOURS.items():
        svg = svg.replace(drawn, shown)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def drawing() -> Any:
    """The style of every figure, for a `with`."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # the first picture of a machine is no news
    import matplotlib

    return matplotlib.rc_context(STYLE)


def draw_curves(
    name: str,
    label: str,
    panels: Mapping[str, Mapping[str, Curve]],
    x: str,
    y: Sequence[str],
    order: Sequence[str] = (),
) -> str:
    """Panels (title -> line -> curve) of lines over `x`; `y` names what each panel's height is, with its unit.

    `order`: all lines, where one has to look the same in every panel.
    """
    figure, axes = _draw_panels(list(panels))
    for panel, lines, unit in zip(axes, panels.values(), y, strict=True):
        for position, (line, (xs, ys)) in enumerate(lines.items()):
            number = order.index(line) if order else position
            marker = MARKERS[number % 6] if len(xs) < 30 else None
            style: dict[str, Any] = {"color": SERIES[number % 6], "linestyle": DASHES[number % 6], "marker": marker}
            panel.plot(xs, ys, linewidth=1.4, markersize=4, label=line, **style)
        panel.set(xlabel=x, ylabel=unit)
        if len(lines) > 1 or order:
            panel.legend(fontsize=8)
    return _to_svg(figure, name, label)


def draw_histograms(name: str, label: str, panels: Mapping[str, Mapping[str, Sequence[float]]], x: str) -> str:
    """Panels (title -> kind -> values) of overlaid histograms, each kind of an area of 1, over one range."""
    figure, axes = _draw_panels(list(panels))
    every = [value for kinds in panels.values() for values in kinds.values() for value in values]
    bins = np.linspace(min(every), max(max(every), min(every) + 1e-6), 31)
    for panel, kinds in zip(axes, panels.values(), strict=True):
        for number, (kind, values) in enumerate(kinds.items()):
            weight = np.full(len(values), 100 / max(len(values), 1))
            colour = SERIES[number]
            panel.hist(values, bins, weights=weight, color=colour, alpha=0.35, hatch=HATCHES[number], label=kind)
            panel.hist(values, bins, weights=weight, histtype="step", color=colour, linestyle=DASHES[number])
        panel.set(xlabel=x, ylabel="% of the pairs")
        panel.legend(fontsize=8)
    return _to_svg(figure, name, label)


def draw_lengths(name: str, label: str, tokens: Sequence[int], texts: Sequence[int], limit: int | None) -> str:
    """How many texts have how many tokens, and where they are cut."""
    figure, (panel,) = _draw_panels([""], 2.2)
    width = -(-(max(tokens) + 1 - min(tokens)) // 60)  # whole tokens, or some bars would stand for more lengths
    bins = np.arange(min(tokens), max(tokens) + 2 * width, width) - 0.5
    panel.hist(tokens, bins=bins.tolist(), weights=texts, color=SERIES[0], alpha=0.7)
    if limit is not None and limit <= 2 * max(tokens):  # a limit far away would only squeeze the rest
        panel.axvline(limit, color=INK, linestyle="--", linewidth=1.2)
        panel.annotate(
            f"cut at {limit} ", (limit, 0.95), xycoords=("data", "axes fraction"), ha="right", va="top", fontsize=9
        )
    panel.set(xlabel="tokens", ylabel="distinct texts")
    return _to_svg(figure, name, label)


def draw_maps(name: str, label: str, panels: Mapping[str, Sequence[Sequence[float]]], labels: Sequence[str]) -> str:
    """Panels (title -> points) of texts in two dimensions; the most frequent classes have a colour and a mark."""
    figure, axes = _draw_panels(list(panels), 3.6)
    figure.subplots_adjust(bottom=0.31)
    shown = sorted(set(labels), key=lambda each: (-labels.count(each), each))[: len(SERIES)]
    for panel, points in zip(axes, panels.values(), strict=True):
        where = np.array(points)
        kind = np.array([shown.index(each) if each in shown else -1 for each in labels])
        if (kind == -1).any():
            panel.scatter(*where[kind == -1].T, s=14, marker="x", color=LINE, linewidths=0.8, label="others")
        for number, each in enumerate(shown):
            at = where[kind == number].T
            panel.scatter(*at, s=18, marker=MARKERS[number], color=SERIES[number], alpha=0.85, label=each[:24])
        panel.set(xlabel="first component", ylabel="second component")
    handles, names = axes[-1].get_legend_handles_labels()
    figure.legend(handles, names, ncols=3, fontsize=8, loc="lower center")
    return _to_svg(figure, name, label)


def draw_shares(name: str, label: str, seconds: Mapping[str, float]) -> str:
    """A bar for each thing that time was spent on."""
    figure, (panel,) = _draw_panels([""], 0.5 + 0.25 * len(seconds))
    figure.subplots_adjust(0.12, 0.5 / figure.get_figheight(), 0.93, 0.98)
    bars = panel.barh(range(len(seconds)), list(seconds.values()), color=SERIES[0], alpha=0.7)
    panel.set_yticks(range(len(seconds)), list(seconds))
    panel.bar_label(bars, [f"{value:.1f} s" for value in seconds.values()], padding=4, fontsize=9)
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")
    panel.set(xlabel="seconds")
    return _to_svg(figure, name, label)
