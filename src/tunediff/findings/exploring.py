"""Where is it worth looking: which items, which categories, which measures go together?

Exploratory, all of it: it was not stated before the run, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any

import numpy as np

from tunediff.findings.corrections import benjamini_hochberg
from tunediff.findings.estimates import estimate_ratio
from tunediff.findings.intervals import bca_interval
from tunediff.findings.primary import Items, Primary
from tunediff.measures.choices import calibration_gaps
from tunediff.values import Row

Table = Mapping[tuple[str, str], Sequence[Row]]
"""Rows by suite and measure."""

WORST = 10
# Whose effects on the same items are correlated.
CORRELATED = (
    *("nll", "kl_base_tuned", "exact_match", "choice_accuracy", "words", "keyword_coverage"),
    *("specificity", "instruction_adherence", "repetition", "distinct_2"),
)
_FEWEST_CORRELATED = 10


def worst(primary: Mapping[str, Primary], axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Items where base beats tuned in their axis' primary measure, worst first."""
    losses = []
    for axis, own in primary.items():
        for row in own.measured:
            if row.effect_sum is not None and row.count:
                loss = -axes[axis]["direction"] * row.effect_sum / row.count
                if loss > 0:
                    losses.append((-loss, row.suite, row.item, row.sample, own.measure, axis))
    return [
        {"suite": suite, "item": item, "sample": sample, "axis": axis, "measure": name,
         "loss": -loss}
        for loss, suite, item, sample, name, axis in sorted(losses)[:WORST]
    ]  # fmt: skip


def unmeasured(table: Table) -> dict[str, dict[str, Any]]:
    """By suite, how many items no measure has a figure of, and the first one's reason."""
    reasons: dict[str, dict[str, str | None]] = {}
    measured: set[tuple[str, str]] = set()
    for (suite, _), own in sorted(table.items()):
        for row in own:
            if row.effect_sum is None:
                reasons.setdefault(suite, {}).setdefault(row.item, row.reason)
            else:
                measured.add((suite, row.item))
    found = {}
    for suite, of in reasons.items():
        left = sorted(item for item in of if (suite, item) not in measured)
        if left:
            found[suite] = {"items": len(left), "first": left[0], "reason": of[left[0]]}
    return found


def correlations(table: Table) -> list[dict[str, Any]]:
    """Spearman's ρ of two measures' effects over the items that both have, all suites together."""
    effects: dict[str, dict[tuple[str, str, int], float]] = {}
    for (suite, name), own in table.items():
        if name in CORRELATED:
            effects.setdefault(name, {}).update(
                {
                    (suite, r.item, r.sample): r.effect_sum / r.count
                    for r in own
                    if r.effect_sum is not None and r.count
                }
            )
    found = []
    names = [name for name in CORRELATED if name in effects]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            common = sorted(effects[one].keys() & effects[other].keys())
            if len(common) < _FEWEST_CORRELATED:
                continue
            ranks = [_ranks([effects[n][key] for key in common]) for n in (one, other)]
            if all(np.ptp(r) > 0 for r in ranks):
                rho = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
                found.append({"measures": [one, other], "rho": rho, "items": len(common)})
    return found


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def categories(primary: Mapping[str, Primary], items: Items, seed: int) -> list[dict[str, Any]]:
    """The primary measure by category (such as a subject), p after Benjamini and Hochberg."""
    own: dict[tuple[str, str, str], list[Row]] = {}
    for of_axis in primary.values():
        for row in of_axis.measured:
            of = items.get((row.suite, row.item), {}).get("category")
            if of is not None:
                own.setdefault((row.suite, of, of_axis.measure), []).append(row)
    found = []
    for (suite, of, name), rows in sorted(own.items()):
        e = estimate_ratio(
            [row.group for row in rows],
            [row.effect_sum or 0.0 for row in rows],
            [row.count for row in rows],
            signed=True,
            seed=seed,
        )
        found.append(
            {"suite": suite, "category": of, "measure": name, "effect": e.effect, "low": e.low,
             "high": e.high, "p": e.p, "groups": e.groups}
        )  # fmt: skip
    adjusted = benjamini_hochberg([line["p"] for line in found])
    return [
        {**line, "p_adjusted": p, "exploratory": True}
        for line, p in zip(found, adjusted, strict=True)
    ]


def calibration(table: Table, seed: int) -> dict[str, Any]:
    """Expected calibration error of the multiple choices by suite, with BCa intervals over groups.

    Σ_b |Σ_(i in b) (right_i − confidence_i)| / n over ten bins of equal width, b holding its upper
    edge; ``effect`` is tuned − base.
    """
    found = {}
    for suite in sorted({suite for suite, name in table if name == "choice_confidence"}):
        sides = []
        groups: list[str] = []
        for side in ("base_sum", "tuned_sum"):
            both = [
                {r.item: r for r in table[suite, name] if r.effect_sum is not None}
                for name in ("choice_confidence", "choice_accuracy")
            ]
            items = sorted(both[0].keys() & both[1].keys())
            sure, right = (np.array([getattr(own[i], side) for i in items]) for own in both)
            groups = [both[0][i].group for i in items]
            sides.append(calibration_gaps(sure, right))
        if not groups:
            continue
        names = sorted(set(groups))
        member = np.array([[g == name for g in groups] for name in names], dtype=float)
        base, tuned = (member @ gaps for gaps in sides)
        size = member.sum(axis=1)

        def error(w: np.ndarray, gaps: np.ndarray, size: np.ndarray = size) -> np.ndarray:
            return np.abs(w @ gaps).sum(axis=-1) / (w @ size)

        interval = bca_interval(
            lambda w, t=tuned, b=base, error=error: error(w, t) - error(w, b), len(names), seed=seed
        )
        ones = np.ones(len(names))
        ends = [float(error(ones, gaps)) for gaps in (base, tuned)]
        found[suite] = {
            **dict(zip(("base", "tuned"), ends, strict=True)),
            "effect": ends[1] - ends[0],
            **{"low": interval.low, "high": interval.high, "groups": len(names)},
        }
    return found


def spread(table: Table) -> dict[str, dict[str, dict[str, float]]]:
    """By suite and measure: either side's standard deviation over samples, the mean over items."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (suite, name), rows in sorted(table.items()):
        means: dict[str, dict[str, list[float]]] = {"base": {}, "tuned": {}}
        for row in rows:
            for side, part in (("base", row.base_sum), ("tuned", row.tuned_sum)):
                if part is not None and row.count:
                    means[side].setdefault(row.item, []).append(part / row.count)
        deviations = {
            side: [float(np.std(v, ddof=1)) for v in of.values() if len(v) > 1]
            for side, of in means.items()
        }
        if all(deviations.values()):
            found.setdefault(suite, {})[name] = {
                side: fsum(values) / len(values) for side, values in deviations.items()
            }
    return found
