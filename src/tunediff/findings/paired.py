"""What do several settings of one adapter do to the same items, axis by axis?

The common ground of ``dial`` and ``trace``: each run is a setting, every run asks the same items,
and so settings are compared item by item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunediff.findings.figures import Defined, estimate_rows, floor_of
from tunediff.findings.primary import by_id, primary_rows
from tunediff.run.store import Run
from tunediff.values import Estimate, Row

DRIFT, CONCERN = "drift", "concern"
_KL = "kl_base_tuned"


@dataclass(frozen=True, slots=True)
class Setting:
    """A run, by what is asked of it: the primary measure of each axis, drift and concern.

    ``measures``: of each quantity the measure's name; ``rows``: its rows that can be judged;
    ``thin``: why those of a quantity say too little to be, where they do. Drift is the mean KL of
    tuned from base on general items. A quantity that nothing was asked for is absent.
    """

    name: str
    record: Mapping[str, Any]
    measures: Mapping[str, str]
    rows: Mapping[str, Sequence[Row]]
    thin: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Setting:
        """The rows of a run that are looked at."""
        lines = run.rows()
        primary = primary_rows(lines, by_id(run.items()))
        measures = {axis: own.measure for axis, own in primary.items()}
        rows: dict[str, Sequence[Row]] = {axis: own.judged for axis, own in primary.items()}
        thin = {axis: own.thin for axis, own in primary.items() if own.thin}
        if "safety" in thin:
            thin[CONCERN] = thin["safety"]  # it is of the same openings
        for quantity, measure, axis in ((DRIFT, _KL, "general"), (CONCERN, "concern", "safety")):
            own = [r for r in lines if r.measure == measure and r.axis == axis]
            if own:
                measures[quantity] = measure
                kept = [r for r in own if r.effect_sum is not None]
                rows[quantity] = [] if quantity in thin else kept
        return cls(run.record["identity"]["variant"], run.record, measures, rows, thin)

    @property
    def seed(self) -> int:
        """Of the resampling."""
        return self.record["identity"]["seed"]

    def side(self, side: str) -> dict[str, str]:
        """Where base or tuned lies, and what it is."""
        return {
            "path": self.record["found"]["paths"][side],
            "fingerprint": self.record["identity"][side]["fingerprint"],
        }

    def defined(self, quantity: str) -> Defined:
        """The measure that a quantity is of."""
        return Defined.of(self.record)[self.measures[quantity]]

    def described(self, quantity: str) -> dict[str, Any]:
        """What a quantity is: axis, measure, unit, direction, margin and noise floor."""
        m = self.defined(quantity)
        return {
            "axis": self.axis(quantity),
            "measure": m.name,
            "unit": m.unit,
            "direction": m.direction,
            "margin": m.margin,
            "noise_floor": self.floor(quantity),
        }

    def axis(self, quantity: str) -> str:
        """The axis whose items a quantity is taken over."""
        return {DRIFT: "general", CONCERN: "safety"}.get(quantity, quantity)

    def direction(self, quantity: str) -> int:
        """+1 where higher is better, −1 where lower is."""
        return self.defined(quantity).direction

    def margin(self, quantity: str) -> float:
        """By how much it may get worse; 0 where no margin was stated."""
        return self.defined(quantity).shown_margin

    def floor(self, quantity: str) -> float | None:
        """The noise floor; None where none was measured."""
        return floor_of(self.measures[quantity], self.record["found"]["noise_floor"])

    def estimate(self, quantity: str, rows: Sequence[Row]) -> Estimate | None:
        """The pooled effect of some of a quantity's rows; None where there is no row."""
        return estimate_rows(rows, self.defined(quantity), self.seed) if rows else None


def decisive(setting: Setting) -> str | None:
    """The axis whose gain is looked for: target, else general."""
    return next((axis for axis in ("target", "general") if setting.rows.get(axis)), None)


def figures(e: Estimate | None, why_none: str | None = None) -> dict[str, Any]:
    """An effect with its interval as JSON; null with a reason where there is none."""
    if e is None:
        reason = why_none or "no item has a figure"
        return {"value": None, "low": None, "high": None, "groups": 0, "reason": reason}
    return {
        "value": e.effect,
        "low": e.low,
        "high": e.high,
        "groups": e.groups,
        "reason": e.note or None,
    }
