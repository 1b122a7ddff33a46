"""Which layers and kinds of modules carry what tuning changed?

A pure function of runs of one adapter: whole, and with one group of its modules off (or alone).
What a group carries is the effect of the whole adapter less the effect without the group, item by
item. The groups' parts need not add up to the whole: one may stand in for another, or need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Literal

from tunediff.findings.corrections import benjamini_hochberg
from tunediff.findings.estimates import ItemKey, estimate_ratio, group_of, item_of
from tunediff.findings.paired import Setting, decisive, figures
from tunediff.findings.selection import halves, mean
from tunediff.values import AXES, Estimate, Row

SCHEMA_VERSION = 1

By = Literal["layer", "module"]
Way = Literal["off", "alone"]
_NONE = "no item has a figure in every run"


@dataclass(frozen=True, slots=True)
class Part:
    """A group of modules, and the run in which it was off, or on alone."""

    by: By
    group: str
    modules: int
    way: Way
    setting: Setting


def trace_card(whole: Setting, parts: Sequence[Part]) -> dict[str, Any]:
    """The object of ``trace.json``: what each group carries, and whether the parts add up.

    Args:
        whole: the adapter as it is.
        parts: every group of a way of cutting the adapter, which is what is added up.

    """
    by_axis = {q: _items(whole, parts, q) for q in whole.measures if q in AXES}
    lines: list[dict[str, Any]] = []
    sums: list[dict[str, Any]] = []
    for quantity, items in by_axis.items():
        for by, way in dict.fromkeys((part.by, part.way) for part in parts):
            own = [part for part in parts if (part.by, part.way) == (by, way)]
            lines += _parts(whole, own, quantity, items)
            sums.append(_added(whole, own, quantity, items))
    axis = decisive(whole)
    off: dict[By, list[Part]] = {}
    for part in parts:
        if part.way == "off":
            off.setdefault(part.by, []).append(part)
    most = {
        by: None if axis is None else _most(whole, own, axis, by_axis[axis])
        for by, own in off.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "base": whole.side("base"),
        "adapter": whole.side("tuned"),
        "axis": axis,
        "whole": [
            {
                "quantity": quantity,
                **whole.described(quantity),
                **figures(_whole(whole, items), _why_none(whole, parts, quantity)),
                "left_out": len(whole.rows[quantity]) - len(items),
            }
            for quantity, items in by_axis.items()
        ],
        "parts": lines,
        "additivity": sums,
        "sentences": _sentences(most, axis, sums),
    }


def _effect(row: Row) -> float:
    return row.effect_sum or 0.0


def _items(whole: Setting, parts: Sequence[Part], quantity: str) -> dict[ItemKey, Row]:
    """The whole adapter's rows of the items that have a figure in every run."""
    known = [{item_of(r) for r in part.setting.rows.get(quantity, ())} for part in parts]
    return {item_of(r): r for r in whole.rows[quantity] if all(item_of(r) in own for own in known)}


def _why_none(whole: Setting, parts: Sequence[Part], quantity: str) -> str:
    """Why no item has a figure in every run, where none has."""
    thin = (s.thin.get(quantity) for s in (whole, *(part.setting for part in parts)))
    return next(filter(None, thin), _NONE)


def _carried(whole: Mapping[ItemKey, Row], part: Part, quantity: str) -> dict[ItemKey, float]:
    """Of each item the sum that a group carries: whole − without it, or the group alone."""
    own = {item_of(r): _effect(r) for r in part.setting.rows[quantity]}
    if part.way == "alone":
        return {key: own[key] for key in whole}
    return {key: _effect(row) - own[key] for key, row in whole.items()}


def _estimate(
    whole: Setting, items: Mapping[ItemKey, Row], sums: Mapping[ItemKey, float]
) -> Estimate | None:
    if not items:
        return None
    rows = [(items[key], value) for key, value in sums.items()]
    return estimate_ratio(
        [group_of(r) for r, _ in rows],
        [value for _, value in rows],
        [r.count for r, _ in rows],
        signed=True,
        seed=whole.seed,
    )


def _whole(whole: Setting, items: Mapping[ItemKey, Row]) -> Estimate | None:
    return _estimate(whole, items, {key: _effect(row) for key, row in items.items()})


def _parts(
    whole: Setting, parts: Sequence[Part], quantity: str, items: Mapping[ItemKey, Row]
) -> list[dict[str, Any]]:
    found = [_estimate(whole, items, _carried(items, part, quantity)) for part in parts]
    adjusted = benjamini_hochberg([1.0 if e is None or e.p is None else e.p for e in found])
    total = _whole(whole, items)
    clear = total is not None and abs(total.effect) > _least(whole, quantity)
    return [
        {
            "by": part.by,
            "group": part.group,
            "modules": part.modules,
            "way": part.way,
            "quantity": quantity,
            **whole.described(quantity),
            **figures(e, _why_none(whole, parts, quantity)),
            "p": None if e is None else e.p,
            "p_adjusted": None if e is None else p,
            "share": e.effect / total.effect if e is not None and total is not None and clear
            else None,
        }
        for part, e, p in zip(parts, found, adjusted, strict=True)
    ]  # fmt: skip


def _least(whole: Setting, quantity: str) -> float:
    """An effect no larger than this is nothing to take shares of: its floor, or its margin."""
    return max(whole.floor(quantity) or 0.0, whole.margin(quantity))


def _added(
    whole: Setting, parts: Sequence[Part], quantity: str, items: Mapping[ItemKey, Row]
) -> dict[str, Any]:
    """The sum of what the groups carry against the whole effect, item by item."""
    carried = [_carried(items, part, quantity) for part in parts]
    over = {key: sum(own[key] for own in carried) - _effect(row) for key, row in items.items()}
    e = _estimate(whole, items, over)
    total, floor = _whole(whole, items), whole.floor(quantity) or 0.0
    return {
        "by": parts[0].by,
        "way": parts[0].way,
        "quantity": quantity,
        **whole.described(quantity),
        "sum": None if e is None or total is None else e.effect + total.effect,
        "whole": None if total is None else total.effect,
        **figures(e, _why_none(whole, parts, quantity)),
        "adds_up": None if e is None else _adds_up(e, whole.margin(quantity), floor),
    }


def _adds_up(e: Estimate, margin: float, floor: float) -> bool | None:
    """Whether what is left over is nothing: True where its whole interval lies within the margin.

    False where the interval does not hold 0 and the figure is above the floor; None: unclear.
    """
    if e.low is None or e.high is None:
        return None
    if max(abs(e.low), abs(e.high)) <= max(margin, floor):
        return True
    return None if e.low <= 0 <= e.high or abs(e.effect) <= floor else False


def _most(
    whole: Setting, parts: Sequence[Part], axis: str, items: Mapping[ItemKey, Row]
) -> tuple[str, float] | None:
    """The group without which most of an axis' effect is lost, and the share of it that is.

    Half of the groups of items choose it, the other half gives the share; None where they are too
    few, or the effect is not above floor and margin.
    """
    carried = {part.group: _carried(items, part, axis) for part in parts}
    chooses, reports = (half.get(axis, []) for half in halves(list(items.values())))
    least = _least(whole, axis)
    if not chooses or not reports or min(abs(mean(h)) for h in (chooses, reports)) <= least:
        return None

    def share(rows: Sequence[Row], group: str) -> float:
        return fsum(carried[group][item_of(r)] for r in rows) / fsum(map(_effect, rows))

    group = max(carried, key=lambda group: share(chooses, group))
    return group, share(reports, group)


def _sentences(most: Mapping[str, tuple[str, float] | None], axis: str | None,
               sums: Sequence[Mapping[str, Any]]) -> list[str]:  # fmt: skip
    said = []
    for by, found in most.items():
        if found is not None:
            group, share = found
            said.append(
                f"Without {group}, {100 * share:.0f} % of the effect on {axis} is lost, the most "
                f"of any {'layer' if by == 'layer' else 'kind of module'} (one half of the items "
                "chose it, the figure is of the other)."
            )
    for found in sums:
        size = max(abs(found["sum"] or 0.0), abs(found["whole"] or 0.0))
        if found["adds_up"] is not False or size <= (found["margin"] or 0.0):
            continue  # what is no change by the margin is nobody's part
        less = abs(found["sum"]) < abs(found["whole"])
        why = "groups stand in for each other" if less else "groups need each other"
        if found["way"] == "alone":
            why = "groups need each other" if less else "groups stand in for each other"
        what = "lost effects" if found["way"] == "off" else "effects alone"
        said.append(
            f"By {found['by']} the {what} on {found['quantity']} do not add up: they sum to "
            f"{found['sum']:+.3g}, and the whole is {found['whole']:+.3g} (difference "
            f"{found['low']:+.3g} to {found['high']:+.3g}); {why}."
        )
    return said
