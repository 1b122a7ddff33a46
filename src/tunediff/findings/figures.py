"""What do rows come to: pooled figures, an estimate, and the keys that summary.json gives them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from tunediff.findings.estimates import estimate_ratio, group_of
from tunediff.findings.proportions import estimate_outcomes
from tunediff.values import Estimate, Row, Verdict

OUTCOMES = (
    *("exact_match", "choice_accuracy", "choice_accuracy_normalised", "degenerate"),
    *("language_kept", "format_list", "format_code", "format_json"),
    *("refused", "refused_by_words", "over_refusal", "over_refusal_by_words"),
)
"""Measures that are right or wrong on an item: paired outcomes, whose flips are counted."""

# Signed token measures whose floor goes by another name: that of the same figure, or of its like.
_FLOORS = {
    **dict.fromkeys(("nll", "nll_of_base_reply", "nll_of_tuned_reply"), "delta_nll"),
    "bits_per_byte": "bits_per_byte_base",
    "kl_of_base_reply_start": "kl_base_tuned",
}


@dataclass(frozen=True, slots=True)
class Defined:
    """What a run's record says of a measure."""

    name: str
    unit: str
    direction: int
    margin: float | None
    pool: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> dict[str, Defined]:
        """Every measure of a run, by name."""
        keys = ("unit", "direction", "margin", "pool")
        found = record["identity"]["measures"].items()
        return {name: cls(name, **{key: m[key] for key in keys}) for name, m in found}

    @property
    def shown_margin(self) -> float:
        """The margin; 0 where none was stated."""
        return self.margin or 0.0


def floor_of(name: str, floors: Mapping[str, float]) -> float | None:
    """A measure's noise floor, or that of its like."""
    return floors.get(_FLOORS.get(name, name))


def estimate_rows(rows: Sequence[Row], m: Defined, seed: int, level: float = 0.95) -> Estimate:
    """Groups of different suites are different groups, whatever their ids."""
    groups = [group_of(row) for row in rows]
    counts = [row.count for row in rows]
    if m.name in OUTCOMES:
        base, tuned = ([getattr(r, f"{s}_sum") or 0.0 for r in rows] for s in ("base", "tuned"))
        return estimate_outcomes(groups, base, tuned, counts, seed=seed, level=level)
    effects = [row.effect_sum or 0.0 for row in rows]
    signed = m.direction != 0 or rows[0].base_sum is not None  # a divergence has no sides
    return estimate_ratio(groups, effects, counts, signed=signed, seed=seed, level=level)


def figures_of(estimate: Estimate | None, adjusted: float | None) -> dict[str, Any]:
    """The effect with its interval; ``adjusted``: its p, corrected for how many were asked."""
    e = estimate or Estimate(0.0, None, None, None, 0, 0)
    return {
        "effect": None if estimate is None else e.effect,
        "low": e.low,
        "high": e.high,
        "p": e.p,
        "p_adjusted": adjusted,
        "groups": e.groups,
        "note": e.note or None,
    }


def said_of(verdict: Verdict) -> dict[str, Any]:
    """What was decided, and how many fresh groups would decide."""
    effect = verdict.estimates.get("effect")
    more = None if effect is None else effect.more_groups
    return {
        "verdict": verdict.code,
        "reason": verdict.reason,
        "more_groups": None if more is None else list(more),
    }


def pooled(rows: Sequence[Row], column: str) -> float | None:
    """Sum over count of one side; None without rows, or for a divergence."""
    sums = [getattr(row, column) for row in rows]
    if not sums or any(part is None for part in sums):
        return None
    return fsum(sums) / sum(row.count for row in rows)
