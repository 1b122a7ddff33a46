"""What does each cell of a sweep gain for what it costs?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunediff.report.plots import GRID, TUNED, style
from tunediff.report.svg import as_file

_PANELS = (
    ("training_flops", "frontier_flops", "training FLOPs"),
    ("general_loss", "frontier_loss", "general loss"),
)


def sweep_plot(result: Mapping[str, Any]) -> bytes:
    """Target gain against compute and against general loss, as an SVG file.

    Whiskers are the interval of the gain; the line joins the cells of the frontier. The same
    result gives the same bytes. A panel whose figures nobody asked for stays empty.
    """
    from matplotlib.figure import Figure

    units = {axis: said["unit"] for axis, said in result["measures"].items()}
    with style():
        figure = Figure(figsize=(9, 4), layout="constrained")
        for place, (cost, flag, label) in enumerate(_PANELS, 1):
            axes = figure.add_subplot(1, 2, place)
            known = [
                cell
                for cell in result["cells"]
                if cell["target_gain"] is not None and cell[cost] is not None
            ]
            for cell in known:
                x, gain = cell[cost], cell["target_gain"]
                if cell["target_gain_low"] is not None:
                    ends = cell["target_gain_low"], cell["target_gain_high"]
                    axes.plot([x, x], ends, color=TUNED, linewidth=0.8)
                axes.plot(x, gain, "o" if cell[flag] else ".", color=TUNED)
                axes.annotate(cell["name"], (x, gain), xytext=(4, 4), textcoords="offset points",
                              fontsize=7)  # fmt: skip
            line = sorted((cell[cost], cell["target_gain"]) for cell in known if cell[flag])
            axes.plot(*zip(*line, strict=True) if line else ([], []), color=GRID, zorder=0)
            unit = f", {units['general']}" if cost == "general_loss" and known else ""
            axes.set(xlabel=label + unit, ylabel=f"target gain, {units['target']}")
            axes.margins(x=0.2)  # for the names
            axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        return as_file(figure)
