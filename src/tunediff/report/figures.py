"""Which plots does a run have, and which numbers stand behind them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any

import numpy as np

from tunediff.report import plots
from tunediff.report.glossary import label
from tunediff.report.text import figure, visible
from tunediff.run.store import Run
from tunediff.values import Row

# One measure of each family is drawn; the others are nearly the same picture.
_NOT_DRAWN = (
    *("bits_per_byte", "kl_tuned_base", "js", "logit_mse", "logit_mse_centred", "logit_l2"),
    *("logit_l2_last", "delta_p_rms", "specificity_numbers", "specificity_names"),
    *("specificity_code", "distinct_1", "distinct_3", "choice_accuracy_normalised", "tokens"),
    *("nll_of_base_reply", "nll_of_tuned_reply", "top1_agreement", "longest_repeated_span"),
)
_QUANTILES = ((0, "least"), (10, "10 %"), (25, "25 %"), (50, "median"), (75, "75 %"), (90, "90 %"),
              (100, "most"))  # fmt: skip
_LAYERS = 40  # bars at most
_NAME = 18  # characters of a suite's name in a plot


@dataclass(frozen=True)
class Drawing:
    """A figure with its title, its text alternative, and the numbers behind it."""

    name: str  # of its file
    title: str
    description: str
    figure: plots.Figure
    header: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)


def axis_strips(axes: Mapping[str, Any]) -> dict[str, tuple[Drawing, bool]]:
    """By axis, its effect against the margin; and whether that is on a logarithmic axis."""
    found = {}
    for axis, own in axes.items():
        effect, low, high = numbers = [own[key] for key in ("effect", "low", "high")]
        drawn, logarithmic = plots.strip(effect, low, high, own["margin"], own["direction"])
        ends = [figure(v, own["unit"], sign=True) for v in numbers]
        description = (
            f"Effect {ends[0]}, interval {ends[1]} to {ends[2]}, margin ±{own['margin']:g} "
            f"{own['unit']}; better is to the right."
        )
        row = (*ends, f"±{own['margin']:g}")
        head = ("effect", "low", "high", "margin")
        drawing = Drawing(f"axis-{axis}", f"{axis}: effect against margin", description, drawn,
                          head, [row])  # fmt: skip
        found[axis] = (drawing, logarithmic)
    return found


def measure_pairs(
    table: Mapping[tuple[str, str], Sequence[Row]], measures: Mapping[str, Any]
) -> dict[str, list[Drawing]]:
    """By suite, the spread of both sides and the paired effects of each measure that moved."""
    found: dict[str, list[Drawing]] = {}
    for (suite, name), rows in sorted(table.items()):
        kept = [row for row in rows if row.effect_sum is not None and row.count]
        if name in _NOT_DRAWN or not any(row.effect_sum for row in kept):
            continue
        base, tuned, effects = (_values(kept, side) for side in ("base", "tuned", "effect"))
        assert effects is not None
        m = measures[name]
        drawn = plots.pairs(
            base, tuned, effects, direction=m["direction"], margin=m["margin"], unit=m["unit"]
        )
        sides = [("base", base), ("tuned", tuned), ("tuned − base", effects)]
        rows_shown = [
            (what, *(figure(v, m["unit"]) for v in (*_at(values), float(np.mean(values)))))
            for what, values in sides
            if values is not None
        ]
        description = f"{len(kept)} items of {visible(suite)}: " + "; ".join(
            f"{row[0]} median {row[4]}, from {row[1]} to {row[7]}" for row in rows_shown
        )
        head = ("", *(title for _, title in _QUANTILES), "mean of items")
        drawing = Drawing(
            f"{suite}-{name}", label(name), f"{description}.", drawn, head, rows_shown
        )
        found.setdefault(suite, []).append(drawing)
    return found


def _values(rows: Sequence[Row], side: str) -> list[float] | None:
    sums = [getattr(row, f"{side}_sum") for row in rows]
    if any(part is None for part in sums):
        return None
    return [part / row.count for part, row in zip(sums, rows, strict=True)]


def _at(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(v) for v in np.percentile(values, [q for q, _ in _QUANTILES])]


def domain_effects(rows: Sequence[Row], measures: Mapping[str, Any]) -> Drawing | None:
    """What changed where it was trained for, beside what changed elsewhere."""
    sums: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for row in rows:
        m = measures[row.measure]
        if row.effect_sum is not None and m["direction"] and m["margin"]:
            own = sums.setdefault(row.measure, {}).setdefault(row.axis, [])
            own.append((row.effect_sum, row.count))
    shown, numbers = [], []
    for name in sorted(sums, key=label):
        m = measures[name]
        both = [_pooled(sums[name].get(axis)) for axis in ("target", "general")]
        if None in both or not any(both):
            continue
        scaled = [m["direction"] * (v or 0.0) / m["margin"] for v in both]
        shown.append((label(name), scaled[0], scaled[1]))
        numbers.append(
            (label(name), *(figure(v, m["unit"], sign=True) for v in both), f"{m['margin']:g}",
             m["unit"])
        )  # fmt: skip
    if not shown:
        return None
    description = "; ".join(f"{n[0]}: target {n[1]}, general {n[2]}" for n in numbers)
    head = ("measure", "target", "general", "margin", "unit")
    return Drawing("domains", "In-domain and out-of-domain", f"{description}.",
                   plots.domains(shown), head, numbers)  # fmt: skip


def _pooled(parts: Sequence[tuple[float, int]] | None) -> float | None:
    return fsum(s for s, _ in parts) / sum(n for _, n in parts) if parts else None


def correlation_heat(found: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """Which measures' effects go together, item by item."""
    names = list(dict.fromkeys(name for line in found for name in line["measures"]))
    if len(names) < 3:
        return None
    places = {name: k for k, name in enumerate(names)}
    values = {}
    for line in found:
        low, high = sorted(places[name] for name in line["measures"])
        values[high, low] = line["rho"]
    rows = [
        (*(label(name) for name in line["measures"]), figure(line["rho"], sign=True),
         str(line["items"]))
        for line in found
    ]  # fmt: skip
    strongest = max(rows, key=lambda row: abs(float(row[2].replace("−", "-"))))
    description = f"Strongest: {strongest[0]} with {strongest[1]}, Spearman's ρ {strongest[2]}."
    drawn = plots.heat([label(name) for name in names], values)
    head = ("measure", "with", "Spearman's ρ", "items")
    return Drawing("correlations", "Measures that move together", description, drawn, head, rows)


def token_shares(run: Run) -> Drawing | None:
    """How KL is spread over tokens, suite by suite."""
    tokens = run.tokens()
    suites = list(dict.fromkeys(tokens["suite"]))
    curves = {s: tokens["kl_base_tuned"][tokens["suite"] == s] for s in suites}
    if not any(len(values) for values in curves.values()):
        return None
    floor = run.record["found"]["noise_floor"].get("kl_base_tuned")
    shown = {_short(name): values.tolist() for name, values in curves.items()}
    drawn = plots.shares(shown, unit="KL(base‖tuned), nats/token", floor=floor)
    rows = [
        (name, *(figure(v) for v in (*_at(values), float(np.mean(values)))), str(len(values)))
        for name, values in curves.items()
    ]
    head = ("suite", *(title for _, title in _QUANTILES), "mean", "tokens")
    description = "; ".join(f"{visible(r[0])}: median {r[4]}, most {r[7]}" for r in rows)
    return Drawing("tokens-kl", "KL over tokens", f"{description}.", drawn, head, rows)


def weight_layers(weights: Mapping[str, Any]) -> Drawing | None:
    """How much each layer's weights changed, relative to their size where that is known."""
    outside = [part for part in weights["modules"] if part["layer"] is None]
    parts = [part for part in (*weights["layers"], *outside) if part["frobenius"]]
    if not parts:
        return None
    known = all(part["relative"] is not None for part in parts)
    key, unit = ("relative", "‖ΔW‖ / ‖W‖, Frobenius") if known else ("frobenius", "‖ΔW‖, Frobenius")
    drawn = parts
    if len(parts) > _LAYERS:
        most = sorted(parts, key=lambda part: -part[key])[:_LAYERS]
        drawn = [part for part in parts if part in most]
    rows = [
        (part["name"], figure(part["frobenius"]), figure(part["relative"]),
         figure(part["spectral"]), figure(part["effective_rank"]))
        for part in [*parts, weights["total"]]
    ]  # fmt: skip
    top = max(parts, key=lambda part: part[key])
    description = f"{len(parts)} parts; {top['name']} changed most, by {figure(top[key])}."
    head = ("layer", "‖ΔW‖_F", "of ‖W‖_F", "‖ΔW‖₂", "effective rank")
    picture = plots.bars([_short(p["name"]) for p in drawn], [p[key] for p in drawn], unit=unit)
    return Drawing("layers", "Layers that changed", description, picture, head, rows)


def _short(name: str) -> str:
    name = visible(name)
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"
