"""What do several settings of one adapter do to the same items, axis by axis?

The common ground of ``dial`` and ``trace``: each run is a setting, every run asks the same items,
and so settings are compared item by item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunediff.findings.estimates import estimate_ratio
from tunediff.findings.primary import by_id, primary_rows
from tunediff.findings.selection import group_of
from tunediff.run.store import Run
from tunediff.values import AXES, Estimate, Row

DRIFT, CONCERN = "drift", "concern"
_KL = "kl_base_tuned"
_FLOORS = {"nll": "delta_nll"}  # a figure's floor, where it goes by another name


@dataclass(frozen=True, slots=True)
class Setting:
    """A run, by what is asked of it: the primary measure of each axis, drift and concern.

    ``measures``: of each quantity the measure's name; ``rows``: its rows that have a figure. Drift
    is the mean KL of tuned from base on general items. A quantity that nothing was asked for is
    absent.
    """

    name: str
    record: Mapping[str, Any]
    measures: Mapping[str, str]
    rows: Mapping[str, Sequence[Row]]

    @classmethod
    def of(cls, run: Run) -> Setting:
        """The rows of a run that are looked at."""
        lines = run.rows()
        primary = primary_rows(lines, by_id(run.items()))
        measures = {axis: own.measure for axis, own in primary.items()}
        rows: dict[str, Sequence[Row]] = {axis: own.measured for axis, own in primary.items()}
        for quantity, measure, axis in ((DRIFT, _KL, "general"), (CONCERN, "concern", "safety")):
            own = [r for r in lines if r.measure == measure and r.axis == axis]
            if own:
                measures[quantity] = measure
                rows[quantity] = [r for r in own if r.effect_sum is not None]
        return cls(run.record["identity"]["variant"], run.record, measures, rows)

    @property
    def seed(self) -> int:
        """Of the resampling."""
        return self.record["identity"]["seed"]

    def described(self, quantity: str) -> dict[str, Any]:
        """What a quantity is: axis, measure, unit, direction, margin and noise floor."""
        name = self.measures[quantity]
        m = self.record["identity"]["measures"][name]
        return {
            "axis": self.axis(quantity),
            "measure": name,
            "unit": m["unit"],
            "direction": m["direction"],
            "margin": m["margin"],
            "noise_floor": self.floor(quantity),
        }

    def axis(self, quantity: str) -> str:
        """The axis whose items a quantity is taken over."""
        return {DRIFT: "general", CONCERN: "safety"}.get(quantity, quantity)

    def direction(self, quantity: str) -> int:
        """+1 where higher is better, −1 where lower is."""
        return self.record["identity"]["measures"][self.measures[quantity]]["direction"]

    def margin(self, quantity: str) -> float:
        """By how much it may get worse; 0 where no margin was stated."""
        m = self.record["identity"]["measures"][self.measures[quantity]]
        return m["margin"] or 0.0

    def floor(self, quantity: str) -> float | None:
        """The noise floor; None where none was measured."""
        name = self.measures[quantity]
        return self.record["found"]["noise_floor"].get(_FLOORS.get(name, name))


def decisive(setting: Setting) -> str | None:
    """The axis whose gain is looked for: target, else general."""
    return next((axis for axis in ("target", "general") if setting.rows.get(axis)), None)


def estimated(rows: Sequence[Row], quantity: str, seed: int, level: float = 0.95) -> Estimate:
    """The pooled effect of rows that have one."""
    return estimate_ratio(
        [group_of(r) for r in rows],
        [r.effect_sum or 0.0 for r in rows],
        [r.count for r in rows],
        signed=quantity in AXES,
        seed=seed,
        level=level,
    )


def figures(rows: Sequence[Row], quantity: str, seed: int) -> dict[str, Any]:
    """The effect with its interval as JSON; null with a reason where no row has a figure."""
    if not rows:
        reason = "no item has a figure"
        return {"value": None, "low": None, "high": None, "groups": 0, "reason": reason}
    e = estimated(rows, quantity, seed)
    return {
        "value": e.effect,
        "low": e.low,
        "high": e.high,
        "groups": e.groups,
        "reason": e.note or None,
    }
