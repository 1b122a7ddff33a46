"""How did the loss fall?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunediff.report import study_plots
from tunediff.report.plots import style
from tunediff.report.svg import as_file


def loss_plot(report: Mapping[str, Any]) -> bytes:
    """The losses of a ``training.json`` as an SVG file: of the steps, and of the held-out rows.

    The same losses give the same bytes.
    """
    held_out = [(point["step"], point["loss"]) for point in report["held_out"]]
    early = held_out and report["adapter_step"] != report["steps"]
    with style():
        curves = {"": (report["losses"], held_out)}
        return as_file(study_plots.learning(curves, report["adapter_step"] if early else None))
