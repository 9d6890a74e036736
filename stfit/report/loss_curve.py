"""The picture of a training's loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path


def draw_loss_curve(steps: Sequence[float], losses: Sequence[float], path: Path) -> None:
    """Loss over the steps as a PNG."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # the first picture of a machine is no news
    from matplotlib.figure import Figure  # no pyplot: it would keep a state, and look for a display

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, linewidth=1.2)
    axes.set(xlabel="step", ylabel="training loss")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, metadata={"Software": None})
