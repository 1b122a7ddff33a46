"""What did people prefer, do they agree, and which measure says beforehand what they will say?

A pure function of ratings, rows and the items that could have been rated. A second showing of an
item counts for its rater's consistency alone; everything else is of first showings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import fsum
from typing import Any

import numpy as np

from tunediff.findings.agreement import Scale, cohen_kappa, coincidences, krippendorff_alpha
from tunediff.findings.corrections import benjamini_hochberg
from tunediff.findings.decide import judge
from tunediff.findings.estimates import estimate_ratio, group_of
from tunediff.findings.intervals import FEWEST_GROUPS, percentile_interval
from tunediff.findings.labels import calibration_by_labels
from tunediff.findings.proportions import wilson_interval
from tunediff.run.store import Run
from tunediff.values import Estimate, Row

Rating = Mapping[str, Any]
"""``rater``, ``suite``, ``item``, ``axis``, ``group``, ``again``, ``a`` (whose reply was reply A),
``base`` and ``tuned`` (1–5), ``preference`` ("base", "tie" or "tuned")."""

PREFERENCE, ADHERENCE = "human_preference", "human_adherence"
_HUMAN = {PREFERENCE: ("share", 1.0), ADHERENCE: ("points", 4.0)}  # unit, largest effect
_CHOICES = ("base", "tie", "tuned")
_TUNED = {"base": 0.0, "tie": 0.5, "tuned": 1.0}  # what a preference counts for tuned
# How many values what was rated can have, and whether they have an order.
_SCALES: dict[str, tuple[int, Scale]] = {"preference": (3, "nominal"), "adherence": (5, "ordinal")}
_ALL_EQUAL = "all ratings are equal: agreement cannot be told from chance"
_ONE_RATER = "no item was rated by two raters"


def kept_rows(run: Run) -> list[Row]:
    """What people said of a run's replies, as rows; none where nobody was asked."""
    kept = run.ratings()
    return [] if kept is None else rating_rows(kept["ratings"], kept["variant"])


def kept_summary(run: Run) -> dict[str, Any] | None:
    """What the ratings kept in a run folder say; None where nobody was asked."""
    kept = run.ratings()
    if kept is None:
        return None
    suites, seed = kept["study"]["suites"], run.record["identity"]["seed"]
    replied = {(line["suite"], line["item"]) for line in run.replies()}
    pool = {key for key in replied if not suites or key[0] in suites}
    return summarize_ratings(kept["ratings"], run.rows(), pool, variant=kept["variant"], seed=seed)


def rating_rows(ratings: Sequence[Rating], variant: str) -> list[Row]:
    """The ratings as rows of two measures, one a measure and item; the count is of raters.

    ``human_preference`` (share): for either side the wins, a tie being half of one. The effect,
    tuned − base, lies between −1 and 1. ``human_adherence`` (points, 1 to 5): the scores.
    """
    found: dict[tuple[str, str], list[Rating]] = {}
    for r in ratings:
        if not r["again"]:
            found.setdefault((r["suite"], r["item"]), []).append(r)
    rows = []
    for (suite, item), own in sorted(found.items()):
        wins = fsum(_TUNED[r["preference"]] for r in own)
        sides = {
            PREFERENCE: (len(own) - wins, wins),
            ADHERENCE: tuple(float(sum(r[side] for r in own)) for side in ("base", "tuned")),
        }
        of = own[0]
        rows += [
            Row(variant, name, suite, of["axis"], item, of["group"], 0, base, tuned, tuned - base,
                len(own), None)
            for name, (base, tuned) in sides.items()
        ]  # fmt: skip
    return rows


def summarize_ratings(
    ratings: Sequence[Rating],
    rows: Sequence[Row],
    pool: Collection[tuple[str, str]],
    *,
    variant: str,
    seed: int,
) -> dict[str, Any]:
    """What the ratings say.

    Args:
        ratings: of one study, at least one.
        rows: of the run: what the automatic measures say of the same items and of others.
        pool: (suite, item) of all items from which those to be rated were drawn.
        variant: the tuned model's name.
        seed: of the resampling.

    Returns:
        ``items``, ``ratings``, ``shown_twice``: counts. ``measures``: of ``human_preference`` and
        ``human_adherence`` both sides' figures and the effect with its interval. ``win_rate``:
        the share that tuned wins, a tie being half a win. ``raters``: the same by rater.
        ``agreement``: Krippendorff's alpha of preference and adherence, and Cohen's kappa by pair.
        ``consistency``: second showings against first ones. ``side``: how often reply A won.
        ``calibration``: per automatic measure, its rank correlation with what people said and the
        mean over the whole pool corrected by it. Where a figure is null, ``note`` says why.

    """
    first = [r for r in ratings if not r["again"]]
    human = rating_rows(ratings, variant)
    by_name = {name: [row for row in human if row.measure == name] for name in _HUMAN}
    estimates = {name: _estimate(own, seed) for name, own in by_name.items()}
    estimates[PREFERENCE], method = _wilson(first, estimates[PREFERENCE])
    return {
        "items": len(by_name[PREFERENCE]),
        "ratings": len(first),
        "shown_twice": len(ratings) - len(first),
        "win_rate": _win_rate(first, estimates[PREFERENCE], method),
        "measures": _measures(by_name, estimates),
        "raters": _raters(ratings),
        "agreement": _agreement(first, seed),
        "consistency": _consistency(ratings),
        "side": _side(first),
        "calibration": calibration_by_labels(by_name, rows, set(pool), seed),
    }


def _estimate(rows: Sequence[Row], seed: int) -> Estimate:
    """With the ends kept within what is possible."""
    e = estimate_ratio(
        [group_of(row) for row in rows],
        [row.effect_sum or 0.0 for row in rows],
        [row.count for row in rows],
        signed=True,
        seed=seed,
    )
    most = _HUMAN[rows[0].measure][1]
    low, high = (None if end is None else min(max(end, -most), most) for end in (e.low, e.high))
    return replace(e, low=low, high=high)


def _wilson(first: Sequence[Rating], e: Estimate) -> tuple[Estimate, str | None]:
    """The preference's estimate, and by which method its interval is Wilson's, if it is.

    Wilson's is exact enough for one rater without ties. Where the resamples have too little spread
    for an interval, as where tuned wins nearly always, it is taken too, each item as one rating: an
    item's share of wins spreads no wider than a win or a loss does. All ties: there is no interval.
    """
    said = [r["preference"] for r in first]
    alone = len({r["rater"] for r in first}) == 1 and e.groups == len(first)
    if alone and "tie" not in said:
        method, n = "Wilson", len(first)
    elif e.low is None and e.groups >= FEWEST_GROUPS and set(said) != {"tie"}:
        method, n = "Wilson over items", e.groups
    else:
        return e, None
    low, high = wilson_interval(n * (1 + e.effect) / 2, n)
    return replace(e, low=2 * low - 1, high=2 * high - 1, note=""), method


def _win_rate(first: Sequence[Rating], effect: Estimate, wilson: str | None) -> dict[str, Any]:
    """(1 + effect) / 2 of the preference: a tie is half a win."""
    said = [r["preference"] for r in first]
    low, high = (None if end is None else (1 + end) / 2 for end in (effect.low, effect.high))
    return {
        "value": (1 + effect.effect) / 2,
        **{"low": low, "high": high, "p": effect.p, "groups": effect.groups},
        **{"won": said.count("tuned"), "tied": said.count("tie"), "lost": said.count("base")},
        "method": None if low is None else wilson or "bootstrap over items",
        "note": effect.note or None,
    }


def _measures(
    by_name: Mapping[str, Sequence[Row]], estimates: Mapping[str, Estimate]
) -> dict[str, dict[str, Any]]:
    """As a scorecard has its measures; no margin was stated, and the two p are adjusted."""
    adjusted = benjamini_hochberg([estimates[name].p or 0.0 for name in by_name])
    found = {}
    for (name, rows), p in zip(by_name.items(), adjusted, strict=True):
        e, unit = estimates[name], _HUMAN[name][0]
        verdict = judge(e, direction=1, margin=None, adjusted_p=p, unit=unit)
        count = sum(row.count for row in rows)
        more = verdict.estimates["effect"].more_groups
        found[name] = {
            "unit": unit,
            "direction": 1,
            "margin": None,
            "base": fsum(row.base_sum or 0.0 for row in rows) / count,
            "tuned": fsum(row.tuned_sum or 0.0 for row in rows) / count,
            **{"effect": e.effect, "low": e.low, "high": e.high, "p": e.p, "p_adjusted": p},
            **{"groups": e.groups, "note": e.note or None},
            **{"verdict": verdict.code, "reason": verdict.reason},
            "more_groups": None if more is None else list(more),
        }
    return found


def _raters(ratings: Sequence[Rating]) -> list[dict[str, Any]]:
    found = []
    for name in dict.fromkeys(r["rater"] for r in ratings):
        own = [r for r in ratings if r["rater"] == name]
        first = [r for r in own if not r["again"]]
        found.append(
            {
                "rater": name,
                "items": len(first),
                "win_rate": fsum(_TUNED[r["preference"]] for r in first) / len(first),
                "base": sum(r["base"] for r in first) / len(first),
                "tuned": sum(r["tuned"] for r in first) / len(first),
                "consistency": _consistency(own),
            }
        )
    return found


def _agreement(first: Sequence[Rating], seed: int) -> dict[str, Any]:
    """Adherence has two units an item, a reply each; an item's units are resampled together."""
    groups = sorted({_group(r) for r in first})
    return {
        **{
            name: _alpha(_met(first, groups, name), scale, seed)
            for name, (_, scale) in _SCALES.items()
        },
        "kappa": _kappas(first),
    }


def _met(first: Sequence[Rating], groups: Sequence[str], name: str) -> np.ndarray:
    """The coincidences of each group of items: (G, V, V)."""
    values, _ = _SCALES[name]
    units: dict[tuple[str, str, str, str], np.ndarray] = {}
    for r in first:
        for unit, value in _values(r, name).items():
            key = (_group(r), r["suite"], r["item"], unit)
            units.setdefault(key, np.zeros(values))[value] += 1
    met = np.zeros((len(groups), values, values))
    index = [groups.index(key[0]) for key in units]
    np.add.at(met, index, coincidences(np.stack(list(units.values()))))
    return met


def _values(r: Rating, name: str) -> dict[str, int]:
    """A rating's values from 0 on, by what was rated."""
    if name == "preference":
        return {"both": _CHOICES.index(r["preference"])}
    return {side: r[side] - 1 for side in ("base", "tuned")}


def _alpha(met: np.ndarray, scale: Scale, seed: int) -> dict[str, Any]:
    G, V, _ = met.shape
    alpha = float(krippendorff_alpha(met.sum(axis=0), scale))
    found = {"alpha": alpha, "low": None, "high": None, "scale": scale, "note": None}
    if np.isnan(alpha):
        return {**found, "alpha": None, "note": _ALL_EQUAL if met.any() else _ONE_RATER}
    interval = percentile_interval(
        lambda w: krippendorff_alpha((w @ met.reshape(G, -1)).reshape(-1, V, V), scale),
        G,
        seed=seed,
    )
    return {**found, "low": interval.low, "high": interval.high, "note": interval.note or None}


def _kappas(first: Sequence[Rating]) -> list[dict[str, Any]]:
    """Of each pair of raters, on what both rated; adherence with quadratic weights."""
    said: dict[str, dict[tuple[str, str], Rating]] = {}
    for r in first:
        said.setdefault(r["rater"], {})[r["suite"], r["item"]] = r
    found = []
    for one, other in combinations(said, 2):
        both = sorted(said[one].keys() & said[other].keys())
        kappas: dict[str, float | None] = {}
        for name, (values, scale) in _SCALES.items():
            mine, theirs = (
                [value for key in both for value in _values(said[who][key], name).values()]
                for who in (one, other)
            )
            kappas[name] = cohen_kappa(mine, theirs, values, scale)
        found.append({"raters": [one, other], "items": len(both), **kappas})
    return found


def _consistency(ratings: Sequence[Rating]) -> dict[str, Any]:
    """Of items that a rater saw twice: how often the preference and each score were the same."""
    before = {(r["rater"], r["suite"], r["item"]): r for r in ratings if not r["again"]}
    pairs = [(before[r["rater"], r["suite"], r["item"]], r) for r in ratings if r["again"]]
    apart = [abs(one[s] - two[s]) for one, two in pairs for s in ("base", "tuned")]
    return {
        "items": len(pairs),
        "same_preference": sum(one["preference"] == two["preference"] for one, two in pairs),
        "mean_score_difference": sum(apart) / len(apart) if apart else None,
    }


def _side(first: Sequence[Rating]) -> dict[str, Any]:
    """Whether reply A wins because it stands there: its share of the wins, with Wilson's ends."""
    decided = [r for r in first if r["preference"] != "tie"]
    won = sum(r["preference"] == r["a"] for r in decided)
    if not decided:
        return {"a": 0, "of": 0, "share": None, "low": None, "high": None}
    low, high = wilson_interval(won, len(decided))
    return {"a": won, "of": len(decided), "share": won / len(decided), "low": low, "high": high}


def _group(r: Rating) -> str:
    return f"{r['suite']}\x00{r['group']}"
