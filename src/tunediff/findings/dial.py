"""How strong should an adapter be: which strength keeps the most gain inside the margins?

A pure function of runs of one adapter at several strengths. Half of the groups choose the
strength; what is said of it comes from the other half.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from tunediff.findings.estimates import group_of, item_of, items_of, pool_groups
from tunediff.findings.intervals import bca_interval
from tunediff.findings.paired import DRIFT, Setting, decisive, figures
from tunediff.findings.selection import GUARDED, halves, mean
from tunediff.values import Row

SCHEMA_VERSION = 1
STEP = 0.05  # of the grid on which the best strength is looked for
RULE = (
    "the largest gain on {axis} among the strengths whose loss on general and safety is no more "
    "than the margin, on half of the groups; beside the best one the gaps between strengths are "
    f"halved down to steps of {STEP:g}, and measured; the figures are of the other half of the "
    "groups; base, strength 0, is one of those chosen from"
)

Points = Mapping[float, Setting]
"""Settings by strength."""


def choose_strength(points: Points) -> float:
    """The strength that keeps the most gain inside the margins, on the half that chooses; or 0."""
    axis = _axis(points)
    allowed = {s: points[s] for s, c in _choices(points, axis).items() if s and c["admissible"]}
    best = max(allowed, key=lambda s: (_gain(allowed[s], axis, 0), -s), default=0.0)
    if not best or _gain(points[best], axis, 0) <= (points[best].floor(axis) or 0.0):
        return 0.0
    return best


def worth_measuring(points: Points) -> list[float]:
    """The strengths halfway between the best one and its neighbours, on the grid; none in the end.

    Empty too where no axis decides.
    """
    if decisive(next(iter(points.values()))) is None:
        return []
    axis, best = _axis(points), choose_strength(points)
    known = sorted({0.0, *points})
    left, right = (
        known[k] if 0 <= (k := known.index(best) + step) < len(known) else None for step in (-1, 1)
    )
    if right is not None:
        gain, beyond = (_gain(points[s], axis, 0) if s else 0.0 for s in (best, right))
        if beyond > gain:
            left = None  # the gain still rises beyond the best one: it does not lie before it
        elif not best and abs(beyond) <= (points[right].floor(axis) or 0.0):
            right = None  # nothing changes at all
    found = []
    for beside in (left, right):
        if beside is not None and (middle := _between(best, beside)) is not None:
            found.append(middle)
    return sorted(found)


def _between(a: float, b: float) -> float | None:
    """The point of the grid nearest to the middle of two strengths; None where there is none."""
    low, high = sorted((a, b))
    middle = (low + high) / 2
    near = (round((int(middle / STEP) + k) * STEP, 2) for k in (-1, 0, 1, 2))
    return min((s for s in near if low < s < high), key=lambda s: abs(s - middle), default=None)


def dial_card(points: Points, given: Sequence[float]) -> dict[str, Any]:
    """The object of ``dial.json``: the curve, the choice, and the strength recommended.

    Args:
        points: a setting for each strength, 1 among them.
        given: the strengths asked for; the others were added where the best one lay.

    """
    whole = points[1.0]
    axis = decisive(whole)
    curve = [
        {
            "strength": strength,
            "name": point.name,
            "given": strength in given,
            "quantity": quantity,
            **point.described(quantity),
            **figures(point.estimate(quantity, point.rows[quantity]), point.thin.get(quantity)),
        }
        for strength, point in sorted(points.items())
        for quantity in point.measures
    ]
    card: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "base": whole.side("base"),
        "adapter": whole.side("tuned"),
        "axis": axis,
        "judged": _judged(axis),
        "rule": None if axis is None else RULE.format(axis=axis),
        "given": sorted(given),
        "curve": curve,
        "choice": [] if axis is None else list(_choices(points, axis).values()),
    }
    card["recommended"] = _recommended(points, axis)
    card["sentence"] = _sentence(card["recommended"], axis)
    return card


def _judged(axis: str | None) -> str:
    if axis == "target":
        return "gain is that on the target items"
    if axis == "general":
        return "no target items were asked, so gain is that on the general items"
    return "no target or general items with a reference were asked, so no strength is chosen"


def _axis(points: Points) -> str:
    axis = decisive(next(iter(points.values())))
    assert axis is not None
    return axis


def _half(setting: Setting, quantity: str, which: int) -> Sequence[Row]:
    """The rows of the half that chooses (0) or of the one that reports (1)."""
    return halves(setting.rows.get(quantity, ()))[which].get(setting.axis(quantity), [])


def _gain(setting: Setting, axis: str, which: int) -> float:
    rows = _half(setting, axis, which)
    return setting.direction(axis) * mean(rows) + 0.0 if rows else -math.inf  # never -0.0


def _choices(points: Points, axis: str) -> dict[float, dict[str, Any]]:
    """What the choosing half says of each strength: its gain, and its losses against the margins.

    One that was asked for and is not known is null, and the strength not admissible. So is one that
    lacks items which another strength has figures of: the mean over the rest would flatter it.
    """
    items = {
        s: {a: items_of(point.rows.get(a, ())) for a in (axis, *_guarded(point, axis))}
        for s, point in points.items()
    }
    every = {a: set().union(*(own.get(a, ()) for own in items.values())) for a in (axis, *GUARDED)}
    return {
        s: _choice(s, points[s], axis, {a for a in own if own[a] == every[a]})
        for s, own in sorted(items.items())
    }


def _choice(strength: float, setting: Setting, axis: str, whole: Set[str]) -> dict[str, Any]:
    """``whole``: the axes of which no item is lacking."""
    gain = _gain(setting, axis, 0) if axis in whole else -math.inf
    losses = {
        other: 0.0 - _gain(setting, other, 0) if other in whole else math.inf
        for other in _guarded(setting, axis)
    }
    return {
        "strength": strength,
        "name": setting.name,
        "gain": gain if math.isfinite(gain) else None,
        "losses": {
            other: {"loss": loss if math.isfinite(loss) else None, "margin": setting.margin(other)}
            for other, loss in losses.items()
        },
        "admissible": math.isfinite(gain)
        and all(loss <= setting.margin(other) for other, loss in losses.items()),
    }


def _guarded(setting: Setting, axis: str) -> list[str]:
    """The axes asked on which no more than the margin may be lost."""
    return [other for other in GUARDED if other != axis and other in setting.measures]


def _recommended(points: Points, axis: str | None) -> dict[str, Any]:
    """The strength, and on the half that did not choose it what it does, and what it keeps."""
    empty = {"strength": None, "name": None}
    if axis is None:
        return {**empty, "reason": _judged(axis)}
    whole = points[1.0]
    for other in (axis, *_guarded(whole, axis)):
        if not any(_half(p, other, 0) and _half(p, other, 1) for p in points.values()):
            few = f"the items of {other} are too few for two halves"
            return {**empty, "reason": whole.thin.get(other, few).rstrip(".")}
    best = choose_strength(points)
    if not best:
        return {**empty, "reason": f"no strength gains on {axis} and keeps the rest"}
    point = points[best]
    here: dict[str, Any] = {"strength": best, "name": point.name, "reason": None}
    here["effects"] = [
        {
            "quantity": quantity,
            **point.described(quantity),
            **figures(
                point.estimate(quantity, _half(point, quantity, 1)), point.thin.get(quantity)
            ),
        }
        for quantity in point.measures
    ]
    for name, quantity in (("gain_kept", axis), ("drift_kept", DRIFT)):
        here[name] = _kept(point, whole, quantity)
    here["margins"] = [
        _held(point, found) for found in here["effects"] if found["quantity"] in GUARDED
        and found["quantity"] != axis
    ]  # fmt: skip
    return here


def _held(point: Setting, found: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the loss is inside the margin on the half that did not choose, by its interval."""
    ends = (found["low"], found["high"])
    inside = "unclear"
    if None not in ends:
        losses = sorted(-found["direction"] * end for end in ends)
        margin = point.margin(found["quantity"])
        inside = "yes" if losses[1] <= margin else "no" if losses[0] > margin else "unclear"
    return {"axis": found["quantity"], "margin": point.margin(found["quantity"]), "inside": inside}


def _kept(point: Setting, whole: Setting, quantity: str) -> dict[str, Any]:
    """Which share of the adapter's own gain or drift there is at a strength, groups resampled."""

    def share(value: float | None, reason: str | None, low: float | None = None,
              high: float | None = None) -> dict[str, Any]:  # fmt: skip
        return {"value": value, "low": low, "high": high, "reason": reason}

    if quantity not in point.rows:
        return share(None, f"no items were asked that {quantity} is taken over")
    own = {item_of(r): r for r in _half(point, quantity, 1)}
    all_ = [r for r in _half(whole, quantity, 1) if item_of(r) in own]
    full = whole.estimate(quantity, all_)
    if full is None:
        return share(None, "no item has a figure")
    sign = whole.direction(quantity) or 1
    edge = full.low if sign > 0 else full.high  # the end of the interval nearest to nothing
    if full.effect * sign <= (whole.floor(quantity) or 0.0):
        return share(
            None, f"the adapter as it is has no {'drift' if quantity == DRIFT else 'gain'}"
        )
    groups, counts = [group_of(r) for r in all_], [r.count for r in all_]
    _, top, _ = pool_groups(groups, [own[item_of(r)].effect_sum or 0.0 for r in all_], counts)
    _, bottom, _ = pool_groups(groups, [r.effect_sum or 0.0 for r in all_], counts)
    value = float(top.sum() / bottom.sum())
    if edge is None or edge * sign <= 0:
        return share(value, "the adapter's own figure is too unsure for an interval")
    interval = bca_interval(
        lambda w: (w @ top) / np.where(w @ bottom == 0, np.finfo(float).tiny, w @ bottom),
        len(top),
        seed=point.seed,
    )
    return share(value, interval.note or None, interval.low, interval.high)


def _sentence(recommended: Mapping[str, Any], axis: str | None) -> str:
    strength = recommended["strength"]
    if strength is None:
        return f"No strength is recommended: {recommended['reason']}."
    gain, drift = recommended["gain_kept"]["value"], recommended["drift_kept"]["value"]
    if gain is None:
        return (
            f"Strength {strength:g} gains most on {axis}; no share of the adapter's own gain can "
            f"be said: {recommended['gain_kept']['reason']}."
        )
    at = "" if drift is None else f" at {100 * drift:.0f} % of the drift"
    if strength == 1:
        return "The adapter as it is (strength 1) keeps the most gain inside the margins."
    return f"{strength:g} keeps {100 * gain:.0f} % of the gain{at}."
