"""How did the loss fall?"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from typing import Any

from tunediff.errors import MissingExtraError


def require_plotting() -> None:
    """Raise MissingExtraError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "train")


def loss_plot(report: Mapping[str, Any]) -> bytes:
    """The losses of a ``training.json`` as an SVG file: every step's, and the held-out ones.

    The same losses give the same bytes.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    losses, held_out = report["losses"], report["held_out"]
    with rc_context({"svg.hashsalt": "tunediff", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.add_subplot()
        steps = range(1, len(losses) + 1)
        axes.plot(steps, losses, linewidth=0.8, color="#4477aa", label="each step's rows")
        if held_out:
            at, values = zip(*((x["step"], x["loss"]) for x in held_out), strict=True)
            axes.plot(at, values, "o-", markersize=4, color="#cc6677", label="held-out rows")
            if report["adapter_step"] != report["steps"]:
                axes.axvline(report["adapter_step"], color="#999999", label="the adapter's step")
        axes.set(xlabel="step", ylabel="loss, nats/token", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        file = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": "tunediff"})
    return file.getvalue()
