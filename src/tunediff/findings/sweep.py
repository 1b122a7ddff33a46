"""Which cells of a sweep are worth their cost, and how sure is that?

A pure function of what the trainings cost and of the scorecard of the comparison: the object that
is stored as ``sweep.json``. A gain and a loss are turned so that a positive gain is better and a
positive loss is worse, whichever way the axis' measure points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from tunediff.findings.estimates import group_of
from tunediff.findings.figures import Defined, estimate_rows, floor_of
from tunediff.findings.intervals import FEWEST_GROUPS
from tunediff.findings.primary import by_id, primary_rows
from tunediff.findings.selection import GUARDED, comparable, halves, mean
from tunediff.run.store import Run
from tunediff.values import AXES, Row

SCHEMA_VERSION = 1
RULE = (
    "among the settings that lose no more than the margin on general and on safety, and whose gain "
    "on target is above the noise floor and within the margin of the largest: the one of the "
    "fewest training FLOPs, then of the larger gain; chosen on half of the groups of items, with "
    "the figures of the other half; an axis is judged by its primary measure and that one's margin"
)
FRONTIERS = {
    "frontier_loss": ("target_gain", "general_loss"),
    "frontier_flops": ("target_gain", "training_flops"),
}
"""Flag, gain and cost: whether no other cell dominates it (:func:`pareto`)."""
ONCE = (
    "Each setting was trained once: one training run is one sample, and a ranking of settings "
    "needs more of them (--seeds 0,1,2)."
)
_NOT_ASKED = "nothing was asked on this axis"
_HALF = 0.5  # share of a rank that is unused, above which a smaller one is suggested


def summarize_sweep(
    facts: Sequence[Mapping[str, Any]],
    card: Mapping[str, Any],
    runs: Sequence[Run],
    overlap: Mapping[str, int],
) -> dict[str, Any]:
    """The object of ``sweep.json`` and of ``sweep --json``.

    Args:
        facts: one flat record a cell; of a cell that failed ``failed`` is the reason.
        card: the scorecard of ``runs``.
        runs: of the cells that did not fail.
        overlap: rows trained on whose prompt is asked too, by suite.

    """
    axes = {variant["name"]: variant["axes"] for variant in card["variants"]}
    cells = [_record(fact, axes.get(fact["name"], {})) for fact in facts]
    _flag(cells)
    settings = _settings(cells)
    levels = [a["level"] for own in axes.values() for a in own.values()]
    return {
        "schema_version": SCHEMA_VERSION,
        "base": card["base"],
        "interval_level": levels[0] if levels else None,
        "measures": {
            axis: {key: said[key] for key in ("primary", "unit", "direction", "margin")}
            for axis, said in next(iter(axes.values()), {}).items()
        },
        "cells": cells,
        "settings": settings,
        "frontiers": {
            flag: [
                {"name": c["name"], "gain": c[gain], "cost": c[cost]}
                for c in sorted(cells, key=lambda c, cost=cost: c[cost] or 0.0)
                if c[flag]
            ]
            for flag, (gain, cost) in FRONTIERS.items()
        },
        "recommendation": recommend(cells, runs),
        "advice": _advice(cells, settings, overlap),
    }


def pareto(points: Sequence[tuple[float | None, float | None]]) -> list[bool | None]:
    """Of points (gain, cost): whether none dominates it; None where either is unknown.

    One dominates another that has at least its gain at no more than its cost, and is not equal.
    """
    known = [(gain, cost) for gain, cost in points if gain is not None and cost is not None]
    return [
        None
        if gain is None or cost is None
        else not any(g >= gain and c <= cost and (g, c) != (gain, cost) for g, c in known)
        for gain, cost in points
    ]


def recommend(cells: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> dict[str, Any]:
    """The setting chosen by :data:`RULE`, with its figures on the half that did not choose it.

    The seeds of a setting are pooled. Intervals are over groups of items: they say how other items
    would move a figure, and nothing of other seeds.
    """
    by_name = {run.record["identity"]["variant"]: run for run in runs}
    rivals: dict[str, list[Run]] = {}
    for cell in cells:
        if cell["name"] in by_name:
            rivals.setdefault(cell["setting"], []).append(by_name[cell["name"]])
    flops = {setting["name"]: setting["training_flops"] for setting in _settings(cells)}
    judged = {
        name: [primary_rows(run.rows(), by_id(run.items())) for run in own]
        for name, own in rivals.items()
    }
    kept_rows = iter(comparable([run for own in judged.values() for run in own]))
    split = {name: halves(_shared([next(kept_rows) for _ in own])) for name, own in judged.items()}
    fewest = max(
        min(len({group_of(row) for row in half.get("target", ())}) for half in both)
        for both in split.values()
    )
    if fewest < FEWEST_GROUPS:
        return _none(
            f"half of the target's items is {fewest} groups, and fewer than {FEWEST_GROUPS} "
            "neither choose nor report"
        )
    measures = Defined.of(runs[0].record)
    own = {
        axis: measures[rows[0].measure]
        for both in split.values()
        for half in both
        for axis, rows in half.items()
    }
    better = {
        name: {axis: _sign(own[axis]) * mean(rows) for axis, rows in first.items()}
        for name, (first, _) in split.items()
    }
    asked = {axis for each in judged.values() for run in each for axis in run}
    guarded = [axis for axis in GUARDED if axis in asked]
    kept = {
        name: change["target"]
        for name, change in better.items()
        if "target" in change
        and all(axis in change and -change[axis] <= own[axis].shown_margin for axis in guarded)
    }
    if not kept:
        known = all(axis in change for change in better.values() for axis in ("target", *guarded))
        return _none(
            "every setting loses more than the margin on general or safety"
            + ("" if known else ", or has no figure there")
        )
    floor = {name: max(_floor(run, own["target"].name) for run in rivals[name]) for name in kept}
    enough = max(kept.values()) - own["target"].shown_margin
    near = [name for name, gain in kept.items() if gain > floor[name] and gain >= enough]
    if not near:
        return _none("no setting that keeps the rest gains more than the noise floor")
    best = min(near, key=lambda name: (flops[name], -kept[name]))
    return {
        "rule": RULE,
        "name": best,
        "reason": None,
        "chosen_by": kept[best],
        "axes": {
            axis: _figures(split[best][1][axis], own[axis], runs[0].record["identity"]["seed"])
            for axis in ("target", "general", "safety")
            if axis in split[best][1]
        },
        "seeds": len(rivals[best]),
        "others_within_margin": [name for name in near if name != best],
    }


def _shared(seeds: Sequence[Mapping[str, Sequence[Row]]]) -> list[Row]:
    """The rows of a setting's seeds, on the axes that each of them can be judged on."""
    axes = set[str].intersection(*(set(own) for own in seeds))
    return [row for own in seeds for axis in sorted(axes) for row in own[axis]]


def _none(reason: str) -> dict[str, Any]:
    return {"rule": RULE, "name": None, "reason": reason}


def _floor(run: Run, measure: str) -> float:
    return floor_of(measure, run.record["found"]["noise_floor"]) or 0.0


def _sign(m: Defined) -> int:
    """What turns an effect so that positive is better."""
    return 1 if m.direction > 0 else -1


def _figures(rows: Sequence[Row], m: Defined, seed: int) -> dict[str, Any]:
    """A gain on target, a loss elsewhere, with its interval and the margin of a loss."""
    sign = _sign(m) * (1 if rows[0].axis == "target" else -1)
    e = estimate_rows(rows, m, seed)
    effect, low, high = _turned(sign, e.effect, e.low, e.high)
    return {
        "measure": m.name,
        "unit": m.unit,
        "margin": m.shown_margin,
        "effect": effect,
        "low": low,
        "high": high,
        "groups": e.groups,
    }


def _turned(sign: int, effect: float | None, *ends: float | None) -> list[float | None]:
    """Effect, lower and upper end, times a sign that may swap the ends."""
    effect, *ends_ = (None if value is None else sign * value for value in (effect, *ends))
    return [effect, *ends_[::sign]]


def _record(fact: Mapping[str, Any], axes: Mapping[str, Any]) -> dict[str, Any]:
    """A flat record of a cell; a figure that is None has its reason in ``missing``."""
    record: dict[str, Any] = dict.fromkeys(
        ("adapter_parameters", "adapter_bytes", "training_flops", "training_tokens",
         "training_seconds", "steps_done", "first_loss", "last_loss", "held_out_loss",
         "effective_rank", "energy_rank", "unused_rank")
    )  # fmt: skip
    record = {**{k: v for k, v in fact.items() if k not in record}, **record, **fact}
    missing = {
        "held_out_loss": "the recipe holds no rows out",
        **dict.fromkeys(("effective_rank", "energy_rank", "unused_rank"), "ΔW is exactly zero"),
    }
    for axis in AXES:
        name = f"{axis}_{'gain' if axis == 'target' else 'loss'}"
        keys = (name, f"{name}_low", f"{name}_high", f"{axis}_verdict")
        said = axes.get(axis)
        if said is None:
            record |= dict.fromkeys(keys)
            missing |= dict.fromkeys(keys, _NOT_ASKED)
            continue
        sign = (1 if said["direction"] > 0 else -1) * (1 if axis == "target" else -1)
        figures = _turned(sign, said["effect"], said["low"], said["high"])
        record |= dict(zip(keys, (*figures, said["verdict"]), strict=True))
        missing |= dict.fromkeys(keys, said["note"] or said["reason"])
    failed = fact["failed"] and "the cell failed"
    nulls = [key for key, value in record.items() if value is None and key != "failed"]
    record["missing"] = {key: failed or missing[key] for key in nulls}
    return record


def _flag(records: Sequence[dict[str, Any]]) -> None:
    for flag, (gain, cost) in FRONTIERS.items():
        found = pareto([(record[gain], record[cost]) for record in records])
        for record, on_it in zip(records, found, strict=True):
            record[flag] = on_it


def _settings(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean over the seeds of each setting, and of gain and loss the spread, from two seeds on."""
    own: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        own.setdefault(cell["setting"], []).append(cell)
    found = []
    for name, members in own.items():
        trained = [cell for cell in members if not cell["failed"]]
        entry: dict[str, Any] = {"name": name, "seeds": len(trained)}
        for key in ("target_gain", "general_loss", "training_flops"):
            values = [cell[key] for cell in trained if cell[key] is not None]
            entry[key] = fmean(values) if values else None
            if key != "training_flops":
                more = len(values) > 1
                entry[f"{key}_sd"] = stdev(values) if more else None
                entry[f"{key}_range"] = [min(values), max(values)] if more else None
        found.append(entry)
    _flag(found)
    return found


def _advice(
    cells: Sequence[Mapping[str, Any]],
    settings: Sequence[Mapping[str, Any]],
    overlap: Mapping[str, int],
) -> list[str]:
    found = [
        f"{count:,} rows trained on have the prompt of an item of {suite}: what is learnt by heart "
        "counts as gain there."
        for suite, count in overlap.items()
    ]
    failed = [cell["name"] for cell in cells if cell["failed"]]
    if failed:
        found.append(f"Left out, since their training failed: {', '.join(failed)}.")
    if all(setting["seeds"] <= 1 for setting in settings):
        found.append(ONCE)
    else:
        spreads = [s["target_gain_sd"] for s in settings if s["target_gain_sd"] is not None]
        if spreads:
            found.append(
                f"From seed to seed the target gain varies by up to {max(spreads):.3g} (standard "
                f"deviation over {max(s['seeds'] for s in settings)} seeds); a smaller difference "
                "between settings is not settled."
            )
    trained = [cell for cell in cells if not cell["failed"]]
    scales = {cell["alpha"] / cell["rank"] for cell in trained}
    if len(scales) > 1:
        found.append(
            f"alpha is {trained[0]['alpha']:g} in every cell, so the adapter's scale alpha / r "
            f"goes from {max(scales):g} to {min(scales):g}: rank and scale change together "
            "(--scale keeps it)."
        )
    wasteful = [
        cell for cell in trained
        if cell["unused_rank"] is not None and cell["unused_rank"] > _HALF * cell["rank"]
    ]  # fmt: skip
    if wasteful:
        least = min(wasteful, key=lambda cell: cell["rank"])
        found.append(
            f"{least['name']} needs {least['energy_rank']:.1f} of its {least['rank']} directions "
            "for 99 % of the change: a smaller rank could hold it."
        )
    return found
