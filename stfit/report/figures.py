"""The figures of a report: inline SVG in the colors of the page, whose lines and bars also differ in greyscale."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stfit.io.display import shorten, single_line
from stfit.report.run_summary import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it logs once on each machine that it starts

INK, LINE = "#000001", "#000002"
SERIES = ["#000003", "#000004", "#000005", "#000006", "#000007", "#000008"]
COLORS = {INK: "var(--ink)", LINE: "var(--line)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)
}
"""Placeholder color of a drawing -> variable of the style sheet, which has a value for light and for dark pages."""
DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))]
MARKERS = ["o", "s", "^", "D", "v", "P"]
HATCHES = ["", "///", "\\\\\\", "xx", "---", "|||"]
"""Hatches of lines only: dotted ones make a page ten times as large."""
MAX_PANELS = 6
"""Maximum number of plots in a figure."""
MAX_LABEL = 60
"""Maximum number of characters of a label in a legend."""

INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
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
    **dict.fromkeys(INKED, INK),
}


class Picture(NamedTuple):
    """A figure of a page, and its caption, which is also its text alternative."""

    svg: str
    caption: str


def figure_style() -> Any:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _draw_panels(titles: Sequence[str], height: float = 2.4, above: float = 0.0) -> tuple[Figure, list[Any]]:
    """`above`: room for a legend above the panels, in inches."""
    from matplotlib.figure import Figure  # pyplot would keep global state and look for a display

    columns = min(2, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(7.2, height * rows + above))
    panels_share = height * rows / (height * rows + above)
    bottom, top = 0.21 / rows * panels_share, (1 - 0.12 / rows) * panels_share
    figure.subplots_adjust(0.12, bottom, 0.985, top, wspace=0.35, hspace=0.55)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(title, parse_math=False)
        panel.grid(color=LINE, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.yaxis.set_major_formatter("{x:.4g}")  # a common factor would overlap the title
    for empty in panels[len(titles) :]:
        empty.set_visible(False)
    return figure, panels[: len(titles)]


def _to_picture(figure: Figure, id: str, caption: str) -> Picture:
    """Convert a figure to an element of a page. Its ids begin with `id`, so that they are unique on the page."""
    stream = StringIO()
    figure.savefig(stream, format="svg", transparent=True)
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: f' id="{id}-{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{id}-", svg).replace("xlink:href", "href")
    for placeholder, variable in COLORS.items():
        svg = svg.replace(placeholder, variable)
    return Picture(svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1), caption)


def draw_curves(
    id: str,
    caption: str,
    panels: Mapping[str, Sequence[tuple[int, Curve]]],
    units: Sequence[str],
    legend: Sequence[str] = (),
) -> Picture:
    """`panels`: title -> curves, each with the number of its look. `legend`: the meaning of each look."""
    labels = [shorten(single_line(label), MAX_LABEL) for label in legend]
    columns = max(1, 110 // (8 + max(map(len, labels), default=0)))
    figure, axes = _draw_panels(list(panels), above=0.2 * -(-len(labels) // columns))
    for panel, curves, unit in zip(axes, panels.values(), units, strict=True):
        for number, (xs, ys) in curves:
            panel.plot(xs, ys, **_look(number, has_marker=len(xs) < 30))
        panel.set(xlabel="step", ylabel=unit)
    if labels:
        handles = [axes[0].plot([], [], **_look(number))[0] for number in range(len(labels))]
        for text in figure.legend(handles, labels, loc="upper left", ncols=columns, fontsize=8).get_texts():
            text.set_parse_math(False)
    return _to_picture(figure, id, caption)


def _look(number: int, has_marker: bool = True) -> dict[str, Any]:
    dashes, marker = DASHES[(number + number // 6) % 6], MARKERS[number % 6] if has_marker else None
    return {"color": SERIES[number % 6], "linestyle": dashes, "marker": marker, "linewidth": 1.4, "markersize": 4}


def draw_dots(
    id: str, caption: str, title: str, rows: Sequence[str], kinds: Mapping[str, Sequence[dict[str, Any]]]
) -> Picture:
    """A dot plot with intervals: a line for each of `rows`, and on it a dot for each kind -> value, low and high."""
    figure, (panel,) = _draw_panels([title], height=1.2 + 0.26 * len(rows), above=0.2)
    figure.subplots_adjust(left=0.3)
    places = np.arange(len(rows))[::-1]
    for number, (kind, dots) in enumerate(kinds.items()):
        shifted = places + 0.12 * (1 - 2 * number)
        panel.plot([dot["value"] for dot in dots], shifted, label=kind, **_look(number) | {"linestyle": "none"})
        known = [(place, dot) for place, dot in zip(shifted, dots, strict=True) if dot["low"] is not None]
        lows, highs = ([dot[bound] for _, dot in known] for bound in ("low", "high"))
        panel.hlines([place for place, _ in known], lows, highs, color=SERIES[number], linewidth=1.4)
    panel.set_yticks(places, [shorten(single_line(row), MAX_LABEL) for row in rows])
    for label in panel.get_yticklabels():
        label.set_parse_math(False)
    panel.yaxis.grid(False)
    panel.set_ylim(-0.7, len(rows) - 0.3)
    figure.legend(loc="upper left", ncols=len(kinds), fontsize=8)
    return _to_picture(figure, id, caption)


def draw_histograms(id: str, caption: str, panels: Mapping[str, Mapping[str, Sequence[float]]], x: str) -> Picture:
    """Panels (title -> kind -> values) of overlaid histograms over one range, in per cent of each kind's values."""
    figure, axes = _draw_panels(list(panels))
    all_values = [value for kinds in panels.values() for values in kinds.values() for value in values]
    bins = np.linspace(min(all_values), max(max(all_values), min(all_values) + 1e-6), 31)
    for panel, kinds in zip(axes, panels.values(), strict=True):
        for number, (kind, values) in enumerate(kinds.items()):
            weight = np.full(len(values), 100 / max(len(values), 1))
            color = SERIES[number]
            panel.hist(values, bins, weights=weight, color=color, alpha=0.35, hatch=HATCHES[number], label=kind)
            panel.hist(values, bins, weights=weight, histtype="step", color=color, linestyle=DASHES[number])
        panel.set(xlabel=x, ylabel="% of the pairs")
        panel.legend(fontsize=8)
    return _to_picture(figure, id, caption)


def draw_lengths(id: str, caption: str, tokens: Sequence[int], texts: Sequence[int], limit: int | None) -> Picture:
    """A histogram: `texts[i]` texts have `tokens[i]` tokens; a line marks `limit`, at which texts are truncated."""
    figure, (panel,) = _draw_panels([""], 2.2)
    width = -(-(max(tokens) + 1 - min(tokens)) // 60)  # whole tokens, so that all bars cover equally many lengths
    bins = np.arange(min(tokens), max(tokens) + 2 * width, width) - 0.5
    panel.hist(tokens, bins=bins.tolist(), weights=texts, color=SERIES[0], alpha=0.7)
    if limit is not None and limit <= 2 * max(tokens):  # a distant limit would compress the bars
        panel.axvline(limit, color=INK, linestyle="--", linewidth=1.2)
        panel.text(limit, 0.95, f"truncated at {limit} ", transform=panel.get_xaxis_transform(), ha="right", va="top")
    panel.set(xlabel="tokens", ylabel="distinct texts")
    return _to_picture(figure, id, caption)


def draw_loss_curve(steps: Sequence[float], losses: Sequence[float], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, linewidth=1.2)
    axes.set(xlabel="step", ylabel="training loss")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, metadata={"Software": None})
