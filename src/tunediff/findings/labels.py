"""Which automatic measure says beforehand what people will say, and what of the items not rated?

People rate a few items; the measures know all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunediff.findings.correlation import rank_correlation
from tunediff.findings.estimates import group_of
from tunediff.findings.prediction import FEWEST, FEWEST_UNRATED, Powered, powered_mean
from tunediff.values import Row


@dataclass(frozen=True, slots=True)
class _Figures:
    """A measure's effect of each item, and the group of each."""

    of: Mapping[tuple[str, str], float]
    groups: Mapping[tuple[str, str], str]


def calibration_by_labels(
    by_name: Mapping[str, Sequence[Row]],
    rows: Sequence[Row],
    pool: Collection[tuple[str, str]],
    seed: int,
) -> list[dict[str, Any]]:
    """Every automatic measure's effect against people's, the closest first; exploratory.

    Args:
        by_name: the rows of each human measure.
        rows: those of the automatic measures.
        pool: (suite, item) of all items from which those that were rated were drawn at random.
        seed: of the resampling.

    Returns:
        For each pair of an automatic measure and a human one with at least ten items in common:
        ``measure``, ``against``, ``items``; ``rho`` with ``low`` and ``high``, Spearman's over the
        items; ``unrated``; ``corrected`` with its ends, the human measure's mean effect over all
        items by prediction-powered inference; ``corrected_slope``; ``corrected_narrower``: how
        many times narrower that is than from the labels alone. Where a figure is null, ``note`` or
        ``corrected_note`` says why.

    """
    own: dict[str, list[Row]] = {}
    for row in rows:
        if (row.suite, row.item) in pool:
            own.setdefault(row.measure, []).append(row)
    automatic = {name: _figures(measured) for name, measured in own.items()}
    found = []
    for human, labels in by_name.items():
        said = _figures(labels)
        for name, figures in automatic.items():
            line = _calibrated(said, figures, seed)
            if line is not None:
                found.append({"measure": name, "against": human, **line, "exploratory": True})
    return sorted(found, key=lambda line: (line["against"], -abs(line["rho"]), line["measure"]))


def _figures(rows: Sequence[Row]) -> _Figures:
    """Of several samples the first, which is what people saw."""
    of: dict[tuple[str, str], tuple[int, float]] = {}
    groups: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (row.suite, row.item)
        if row.effect_sum is not None and row.count and row.sample <= of.get(key, (row.sample,))[0]:
            of[key] = (row.sample, row.effect_sum / row.count)
            groups[key] = group_of(row)
    return _Figures({key: effect for key, (_, effect) in of.items()}, groups)


def _calibrated(said: _Figures, figures: _Figures, seed: int) -> dict[str, Any] | None:
    """None where fewer than ten items have both, or either says the same of all of them."""
    both = sorted(said.of.keys() & figures.of.keys())
    y, x = (np.array([of[key] for key in both]) for of in (said.of, figures.of))
    if len(both) < FEWEST or np.ptp(y) == 0 or np.ptp(x) == 0:
        return None
    groups = [figures.groups[key] for key in both]
    rho, interval = rank_correlation(x, y, groups, seed=seed)
    rest = np.array([figures.of[key] for key in sorted(figures.of.keys() - said.of.keys())])
    powered, why = _powered(said, figures, y, x, rest)
    corrected = {
        "corrected" if name == "value" else f"corrected_{name}": getattr(powered, name, None)
        for name in ("value", "low", "high", "slope", "narrower")
    }
    return {
        "items": len(both),
        **{"rho": rho, "low": interval.low, "high": interval.high, "note": interval.note or None},
        "unrated": len(rest),
        **corrected,
        "corrected_note": why,
    }


def _powered(
    said: _Figures, figures: _Figures, y: np.ndarray, x: np.ndarray, rest: np.ndarray
) -> tuple[Powered | None, str | None]:
    """The corrected mean, or why there is none."""
    if len(y) < len(said.of):  # the rated items would be another sample than the rest
        return None, f"{len(said.of) - len(y)} of the rated items have no figure"
    if len(set(figures.groups.values())) < len(figures.groups):
        return None, "items come in groups, and the correction is of single items"
    if len(rest) < FEWEST_UNRATED:
        return None, "nearly every item was rated: there is nothing to predict"
    powered = powered_mean(y, x, rest)
    return powered, None if powered is not None else "no spread is left"
