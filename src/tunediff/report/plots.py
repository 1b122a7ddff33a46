"""What does each plot look like?

One function a plot, from plain numbers to a matplotlib figure, all in one style: the colours of
Okabe and Ito, which colour-blind people tell apart, and never colour alone. The figures are small,
about the width of a phone, so that their text stays readable there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

Figure = Axes = Any  # of matplotlib, whose import is slow and belongs into functions

INK, SOFT, GRID, BAND = "#1f1e1c", "#6b6862", "#d9d6cf", "#e9e6de"
BASE, TUNED = "#e69f00", "#0072b2"
BETTER, WORSE, OTHER = "#009e73", "#d55e00", "#56b4e9"
PAPER = "#ffffff"
NAMES = {
    INK: "ink", SOFT: "soft", GRID: "grid", BAND: "band", BASE: "base", TUNED: "tuned",
    BETTER: "better", WORSE: "worse", OTHER: "other", PAPER: "paper",
}  # fmt: skip
"""What each colour is called; a page may give the name another colour."""

WIDTH = 4.2  # inches
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "tunediff",
    "figure.dpi": 72,
}
_SYMLOG = 8  # margins; an effect that is larger is drawn on a logarithmic axis
_BINS = 20
STEPS = 150  # of a sorted curve


@contextmanager
def style() -> Iterator[None]:
    """Draw and save within: the one style, whatever the user's own settings are."""
    import matplotlib as mpl

    settings: Any = {**mpl.rcParamsDefault, **_STYLE}
    with mpl.rc_context(settings):
        yield


def empty(
    height: float, left: float = 0.45, bottom: float = 0.42, top: float = 0.08, **gaps: float
) -> Figure:
    """An empty figure with margins in inches: a layout engine would draw everything twice."""
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, height))
    figure.subplots_adjust(
        left=left / WIDTH, right=1 - 0.08 / WIDTH, bottom=bottom / height, top=1 - top / height,
        **gaps,
    )  # fmt: skip
    return figure


def strip(
    effect: float | None, low: float | None, high: float | None, margin: float, direction: int
) -> tuple[Figure, bool]:
    """An effect and its interval against ±margin, better to the right.

    Returns:
        the figure, and whether its axis is logarithmic beyond the margin.

    """
    figure = empty(0.62, left=0.1, bottom=0.26, top=0.02)
    ax = figure.subplots()
    ends = [v for v in (effect, low, high) if v is not None]
    reach = max([abs(v) for v in ends] or [margin])
    logarithmic = margin > 0 and reach > _SYMLOG * margin
    least = 1.6 * margin if margin else 1.2 * reach or 1.0
    left, right = min([-least, *ends]), max([least, *ends])
    if logarithmic:
        ax.set_xscale("symlog", linthresh=margin, linscale=0.8)
        left, right = (v * (1.6 if abs(v) > least else 1) for v in (left, right))
        tens = [s * 10.0**k for s in (-1, 1) for k in range(-8, 9)]
        beyond = [t for t in tens if left <= t <= right and abs(t) >= 3 * margin]
        ticks = [-margin, 0.0, margin, *_thinned(beyond)]
    else:
        room = 0.08 * (right - left)
        left, right = left - room, right + room
        ticks = [-margin, 0.0, margin]
        if reach > 2.5 * margin:
            ticks.append(float(f"{max(ends, key=abs):.2g}"))
    ax.set_xticks(ticks, [f"{t:+g}".replace("-", "−") if t else "0" for t in ticks])
    ax.minorticks_off()
    ax.set_xlim((right, left) if direction < 0 else (left, right))
    ax.set_ylim(-1, 1)
    ax.axvspan(-margin, margin, color=BAND, linewidth=0)
    ax.axvline(0, color=SOFT, linewidth=0.8)
    if effect is not None:
        good = effect * direction
        colour = BETTER if good > margin else WORSE if good < -margin else INK
        if low is not None and high is not None:
            ax.hlines(0, low, high, color=colour, linewidth=2.2)
            ax.vlines([low, high], -0.35, 0.35, color=colour, linewidth=1.4)
        ax.plot([effect], [0], "o", color=colour, markersize=6)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    return figure, logarithmic


def _thinned(values: Sequence[float]) -> list[float]:
    """At most three of them to a side."""
    kept = []
    for sign in (-1, 1):
        own = sorted((v for v in values if v * sign > 0), key=abs)
        kept += own[-1 :: -max(1, -(-len(own) // 3))]
    return kept


def pairs(
    base: Sequence[float] | None,
    tuned: Sequence[float] | None,
    effects: Sequence[float],
    *,
    direction: int,
    margin: float | None,
    unit: str,
) -> Figure:
    """How either side's figures are spread over the items, and every item's effect, sorted."""
    figure = empty(1.75, left=0.5, top=0.22, wspace=0.42)
    if base is None or tuned is None:
        right = figure.subplots()
    else:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
        _spread(left, np.asarray(base), np.asarray(tuned), unit)
    _sorted(right, np.asarray(effects), direction, margin, base is not None)
    return figure


def _spread(ax: Axes, base: np.ndarray, tuned: np.ndarray, unit: str) -> None:
    both = np.concatenate([base, tuned])
    if set(np.unique(both)) <= {0.0, 1.0}:
        for y, values, colour in ((1, base, BASE), (0, tuned, TUNED)):
            ax.barh(y, values.mean(), color=colour, height=0.55)
            ax.text(values.mean() + 0.02, y, f"{100 * values.mean():.3g} %", va="center", size=8)
        ax.set_yticks([1, 0], ["base", "tuned"])
        ax.set_xlim(0, 1.3)
        ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        ax.set_xlabel("share of items")
        return
    edges = np.histogram_bin_edges(both, bins=_BINS)
    for values, colour, line, name in ((base, BASE, "-", "base"), (tuned, TUNED, "--", "tuned")):
        counts, _ = np.histogram(values, edges)
        ax.stairs(counts, edges, color=colour, linestyle=line, linewidth=1.6, label=name)
    ax.locator_params(axis="x", nbins=4)
    ax.locator_params(axis="y", nbins=3, integer=True)
    ax.set_xlabel(unit)
    ax.set_ylabel("items")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.98), ncols=2, handlelength=1.4,
              columnspacing=1.0, borderaxespad=0)  # fmt: skip


def _sorted(
    ax: Axes, effects: np.ndarray, direction: int, margin: float | None, signed: bool
) -> None:
    ordered = np.sort(effects)[::-1] if direction >= 0 else np.sort(effects)
    steps = min(len(ordered), STEPS)
    values = ordered[(np.arange(steps) + 0.5).astype(int) * len(ordered) // steps]
    x = np.arange(steps + 1) / steps
    if margin:
        ax.axhspan(-margin, margin, color=BAND, linewidth=0)
    signs = ((1, "higher", TUNED), (-1, "lower", BASE))
    if direction:
        signs = ((direction, "better", BETTER), (-direction, "worse", WORSE))
    if not signed and not (values < 0).any():
        signs = ((1, "", OTHER),)
    said = []
    for sign, word, colour in signs:
        kept = np.where(values * sign > 0, values, 0.0)
        ax.stairs(kept, x, fill=True, color=colour, linewidth=0)
        said.append(f"{int((effects * sign > 0).sum())} {word}".strip())
    ax.axhline(0, color=SOFT, linewidth=0.8)
    equal = int((effects == 0).sum())
    if signed:
        counts = " · ".join([*said, f"{equal} equal"])
        ax.set_title(counts, size=8, color=SOFT, loc="right")
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    ax.set_xlabel("share of items, sorted")
    ax.locator_params(axis="y", nbins=4)


def domains(rows: Sequence[tuple[str, float, float]]) -> Figure:
    """Effects in-domain and out of it: a measure a row, ``(label, in, out)`` in margins.

    Positive is better. Beyond ±1 the axis is logarithmic.
    """
    figure = empty(0.75 + 0.3 * len(rows), left=1.35, top=0.3)
    ax = figure.subplots()
    ys = np.arange(len(rows))[::-1]
    ax.axvspan(-1, 1, color=BAND, linewidth=0)
    ax.axvline(0, color=SOFT, linewidth=0.8)
    ax.set_xscale("symlog", linthresh=1, linscale=0.6)
    for y, (_, inside, outside) in zip(ys, rows, strict=True):
        ax.hlines(y, inside, outside, color=GRID, linewidth=2)
    for column, marker, colour, name in ((1, "o", TUNED, "target"), (2, "s", WORSE, "general")):
        ax.plot([row[column] for row in rows], ys, marker, color=colour, label=name, markersize=6)
    reach = 2 * max([1.0, *(abs(v) for row in rows for v in row[1:])])
    ax.set_xlim(-reach, reach)
    tens = [t for t in (10, 100, 1000, 10000) if t <= reach]
    ticks = [*(-t for t in tens[::-1]), -1, 0, 1, *tens]
    ax.set_xticks(ticks, [f"{t:+d}".replace("-", "−") if t else "0" for t in ticks])
    ax.minorticks_off()
    ax.set_yticks(ys, [row[0] for row in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlabel("worse ← effect in margins → better")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, borderaxespad=0.1)
    return figure


def heat(names: Sequence[str], values: Mapping[tuple[int, int], float]) -> Figure:
    """Correlations of measures, one square each with its number: blue +, orange −."""
    figure = empty(1.0 + 0.3 * len(names), left=1.35, bottom=0.95)
    ax = figure.subplots()
    for (i, j), rho in values.items():
        colour, strength = (TUNED if rho > 0 else WORSE), abs(rho)
        ax.add_patch(_square(j, i, colour, 0.08 + 0.62 * strength))
        shown = f"{rho:+.2f}".replace("-", "−").replace("0.", ".")
        ax.text(j, i, shown, ha="center", va="center", size=7.5)
    ax.set_xlim(-0.5, len(names) - 1.5)
    ax.set_ylim(len(names) - 0.5, 0.5)
    ax.set_xticks(range(len(names) - 1), names[:-1], rotation=40, ha="right", size=7.5)
    ax.set_yticks(range(1, len(names)), names[1:], size=7.5)
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    return figure


def raised(exponent: int) -> str:
    """An exponent in raised digits."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _square(x: float, y: float, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=colour, alpha=alpha, linewidth=0)


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    unit: str,
    lows: Sequence[float | None] = (),
    highs: Sequence[float | None] = (),
    colour: str = TUNED,
) -> Figure:
    """A bar a label, in the order given, with intervals where there are any."""
    figure = empty(0.55 + 0.19 * len(labels), left=1.35)
    ax = figure.subplots()
    ys = np.arange(len(labels))[::-1]
    ax.barh(ys, values, color=colour, height=0.62)
    for y, low, high in zip(ys, lows, highs, strict=False):
        if low is not None and high is not None:
            ax.hlines(y, low, high, color=INK, linewidth=1.2)
    ax.axvline(0, color=SOFT, linewidth=0.8)
    if not any(values) and not any(lows) and not any(highs):
        ax.set_xlim(0, 1)  # else the axis would zoom in on nothing
    ax.set_yticks(ys, labels, size=7.5)
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel(unit)
    ax.margins(y=0.02)
    return figure


def shares(curves: Mapping[str, Sequence[float]], *, unit: str, floor: float | None) -> Figure:
    """Of how many tokens is a figure at most x? A curve a name, on a logarithmic axis."""
    figure = empty(2.2)
    ax = figure.subplots()
    lines = ("-", "--", ":", "-.")
    colours = (TUNED, WORSE, BETTER, BASE)
    for k, (name, values) in enumerate(curves.items()):
        x = np.sort(np.asarray(values, dtype=np.float64))
        x = np.maximum(x, 1e-12)
        share = np.arange(1, len(x) + 1) / len(x)
        at = np.unique(np.linspace(0, len(x) - 1, min(len(x), 200)).astype(int))
        ax.plot(x[at], share[at], lines[k % 4], color=colours[k % 4], label=name)
    if floor:
        ax.axvline(floor, color=SOFT, linewidth=0.8, linestyle=":")
    ax.set_xscale("log")
    least, most = ax.get_xlim()
    tens = np.arange(np.ceil(np.log10(least)), np.floor(np.log10(most)) + 1)
    tens = tens[:: max(1, -(-len(tens) // 6))].astype(int)
    ax.set_xticks(10.0**tens, [f"10{raised(int(k))}" if k else "1" for k in tens])
    ax.minorticks_off()
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1], ["0", "½", "1"])
    ax.set_ylabel("share of tokens")
    ax.set_xlabel(unit)
    ax.legend(loc="best")
    return figure
