"""What do the plots of a study look like: a dial's curve, a sweep's frontier, how the loss fell?

In the style of :mod:`tunediff.report.plots`, and drawn within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tunediff.report.plots import (
    BAND,
    BASE,
    BETTER,
    GRID,
    SOFT,
    STEPS,
    TUNED,
    WORSE,
    Figure,
    empty,
)


def curve(
    xs: Sequence[float],
    values: Sequence[float],
    lows: Sequence[float | None],
    highs: Sequence[float | None],
    *,
    margin: float | None,
    direction: int,
    xlabel: str,
    ylabel: str,
    marked: float | None,
) -> Figure:
    """Effects with their intervals along a setting; the chosen setting is marked."""
    figure = empty(2.3, left=0.65, top=0.28)  # above it: a power of ten, and the legend
    ax = figure.subplots()
    if margin:
        ax.axhspan(-margin, margin, color=BAND, linewidth=0)
    ax.axhline(0, color=SOFT, linewidth=0.8)
    for x, low, high in zip(xs, lows, highs, strict=True):
        if low is not None and high is not None:
            ax.vlines(x, low, high, color=TUNED, linewidth=1.2)
    ax.plot(xs, values, "o-", color=TUNED, markersize=4.5)
    if marked is not None and marked in xs:
        at = list(xs).index(marked)
        ax.plot([marked], [values[at]], "D", color=WORSE, markersize=8, label="recommended")
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    if direction < 0:
        ax.invert_yaxis()  # better is up
    ax.locator_params(axis="y", nbins=5)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    return figure


def frontier(
    gains: Sequence[float],
    costs: Sequence[float],
    on_it: Sequence[bool],
    chosen: Sequence[bool],
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Gain against cost of each setting; those that no other one dominates are joined."""
    figure = empty(2.6, left=0.65, top=0.5)
    ax = figure.subplots()
    line = sorted((c, g) for g, c, on in zip(gains, costs, on_it, strict=True) if on)
    ax.plot([c for c, _ in line], [g for _, g in line], "-", color=GRID, label="frontier")
    for which, marker, colour, name in (
        (lambda on, best: not on and not best, ".", SOFT, "dominated"),
        (lambda on, best: on and not best, "o", TUNED, "on the frontier"),
        (lambda on, best: best, "D", WORSE, "recommended"),
    ):
        own = [k for k, pair in enumerate(zip(on_it, chosen, strict=True)) if which(*pair)]
        if own:
            ax.plot([costs[k] for k in own], [gains[k] for k in own], marker, color=colour,
                    label=name, markersize=7)  # fmt: skip
    ax.axhline(0, color=SOFT, linewidth=0.6)
    ax.locator_params(nbins=5)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, columnspacing=0.9,
              handletextpad=0.3, borderaxespad=0)  # fmt: skip
    return figure


def learning(
    curves: Mapping[str, tuple[Sequence[float], Sequence[tuple[int, float]]]],
    marked: int | None = None,
) -> Figure:
    """The loss of each step, thinned, and of the rows held out, by name ("" where there is but
    one); a step may be marked.
    """
    figure = empty(2.2, left=0.6)
    ax = figure.subplots()
    lines, colours = ("-", "--", ":", "-."), (TUNED, WORSE, BETTER, BASE)
    for k, (name, (losses, held_out)) in enumerate(curves.items()):
        at = np.unique(np.linspace(0, len(losses) - 1, min(len(losses), STEPS)).astype(int))
        colour = colours[k % len(colours)]
        ax.plot(at + 1, np.asarray(losses)[at], lines[k % len(lines)], color=colour,
                label=name or "a step's rows", linewidth=1.1)  # fmt: skip
        if held_out:
            ax.plot([s for s, _ in held_out], [v for _, v in held_out], "s", color=colour,
                    label=f"{name}, held-out rows".removeprefix(", "), markersize=4)  # fmt: skip
    if marked is not None:
        ax.axvline(marked, color=SOFT, linewidth=0.8, label="the adapter's step")
    ax.set_ylim(bottom=0)
    ax.locator_params(nbins=5)
    ax.set_xlabel("step")
    ax.set_ylabel("loss, nats/token")
    ax.legend(loc="best")
    return figure
