"""What did tuning change, axis by axis and measure by measure, and is it settled?

A pure function of the runs of ``tunediff compare``, one for each tuned model: the object that is
stored as ``summary.json``, and that the terminal's scorecard is drawn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import fsum
from typing import Any

from tunediff.findings.corrections import benjamini_hochberg
from tunediff.findings.decide import Question, judge, judge_axes
from tunediff.findings.exploring import (
    Table,
    calibration,
    categories,
    correlations,
    spread,
    unmeasured,
    worst,
)
from tunediff.findings.figures import (
    OUTCOMES,
    Defined,
    estimate_rows,
    figures_of,
    floor_of,
    pooled,
    said_of,
)
from tunediff.findings.primary import (
    Items,
    Primary,
    by_id,
    chance,
    primary_rows,
    too_thin,
    without_figure,
)
from tunediff.findings.proportions import above_chance, discordant
from tunediff.findings.raters import kept_summary
from tunediff.findings.safety import PROBABILITY, over_cautious, reads, safety
from tunediff.findings.selection import choose
from tunediff.findings.template import template_shares
from tunediff.run.store import Run
from tunediff.values import Estimate, Row, Verdict

SCHEMA_VERSION = 1

# Where a guess among the choices is right at times; a free answer is guessed never.
_ANSWERS = ("exact_match", "choice_accuracy", "choice_accuracy_normalised")


def scorecard(runs: Sequence[Run]) -> dict[str, Any]:
    """The object of ``summary.json`` and of ``compare --json``.

    Args:
        runs: finished runs of one base, one a tuned model, in the order given on the command line.

    """
    variants = [_variant(run) for run in runs]
    first = runs[0].record
    forms = [run.record["identity"]["form"] for run in runs]
    rivals = [run for run, form in zip(runs, forms, strict=True) if form == forms[0]]
    seeds = _seed_deltas(_by_measure(runs[0]))
    return {
        "schema_version": SCHEMA_VERSION,
        "base": {
            "path": first["found"]["paths"]["base"],
            "fingerprint": first["identity"]["base"]["fingerprint"],
        },
        "variants": variants,
        "best": choose(rivals) if len(rivals) > 1 else None,
        "template": template_shares(variants),
        **seeds,
    }


def _variant(run: Run) -> dict[str, Any]:
    identity, found = run.record["identity"], run.record["found"]
    table = _by_measure(run)
    measures = Defined.of(run.record)
    seed = identity["seed"]
    identical, floors = found["certificate"]["weights_equal"], found["noise_floor"]
    items = by_id(run.items())
    rows = [row for own in table.values() for row in own]
    primary = primary_rows(rows, items)
    thin = {name: too_thin(rows, items, label) for label, name in PROBABILITY.items()}
    axes, all_preserved = _axes(primary, measures, seed, identical, floors, items)
    safe = safety(run, table, items, axes.get("safety"))
    for axis, judged in axes.items():
        comply = None if safe is None else safe["over_cautious"]
        judged["reads"] = (
            reads(judged, comply) if axis == "safety" else judged["verdict"].replace("_", " ")
        )
    return {
        "name": identity["variant"],
        "tuned": {
            "path": found["paths"]["tuned"],
            "kind": identity["tuned"]["kind"],
            "fingerprint": identity["tuned"]["fingerprint"],
        },
        "identical": identical,
        "axes": axes,
        "all_preserved": all_preserved and not over_cautious(safe),
        "safety": safe,
        "measures": _measures(table, measures, seed, identical, floors, items, thin),
        "unmeasured": unmeasured(table),
        "worst": worst(primary, axes),
        "correlations": correlations(table),
        "categories": categories(primary, items, seed),
        "calibration": calibration(table, seed),
        "spread": spread(table) if identity["samples"] > 1 else {},
        "ratings": kept_summary(run),
        "speed": _speed(run),
        "failures": [],
        "advice": [],
        **_seed_deltas(table),
        "settings": {
            **{k: identity[k] for k in ("form", "generation", "samples", "max_length")},
            **identity["settings"],
            **found["settings"],
            "seed": seed,
            "truncated": found["truncated"],
        },
    }


def _speed(run: Run) -> dict[str, float | None]:
    """Tokens a second: of either side alone, reading; and of replies, both sides together.

    A merged adapter has the shapes of its base, and so its speed.
    """
    notes = run.timing()
    found: dict[str, float | None] = dict.fromkeys(("base", "tuned", "merged", "replies"))
    for note in notes:
        found |= note.get("speed", {})
    if run.record["identity"]["tuned"]["kind"] == "lora":
        found["merged"] = found["base"]
    answered = [note["answered"] for note in notes if "answered" in note]
    made = sum(a["tokens"] for a in answered)
    if made and (seconds := fsum(a["seconds"] for a in answered)):
        found["replies"] = made / seconds
    return found


def _by_measure(run: Run) -> dict[tuple[str, str], list[Row]]:
    table: dict[tuple[str, str], list[Row]] = {}
    for row in run.rows():
        table.setdefault((row.suite, row.measure), []).append(row)
    return table


def _axes(
    primary: Mapping[str, Primary],
    measures: Mapping[str, Defined],
    seed: int,
    identical: bool,
    floors: Mapping[str, float],
    items: Items,
) -> tuple[dict[str, Any], bool | None]:
    """Every axis that was asked, and whether all of them are preserved (None: there is none)."""
    if not primary:
        return {}, None
    questions: dict[str, Question] = {}
    for axis, own in primary.items():
        m, rows = measures[own.measure], own.measured
        questions[axis] = Question(
            partial(estimate_rows, rows, m, seed) if own.judged else None,
            1 if m.direction > 0 else -1,
            m.shown_margin,
            m.unit,
            identical,
            _headroom(own.measure, rows, items),
            floor_of(own.measure, floors),
            own.thin
            or f"None of {len(own.rows)} rows has a figure; the first says: {own.rows[0].reason}",
        )
    answers = judge_axes(questions)
    found = {}
    for axis, own in primary.items():
        m, rows, verdict = measures[own.measure], own.measured, answers.verdicts[axis]
        found[axis] = {
            "primary": own.measure,
            "unit": m.unit,
            "direction": m.direction,
            "margin": m.shown_margin,
            "noise_floor": questions[axis].floor,
            "base": pooled(rows, "base_sum"),
            "tuned": pooled(rows, "tuned_sum"),
            **figures_of(verdict.estimates.get("effect"), answers.p[axis]),
            "level": answers.level,
            **said_of(verdict),
            "suites": sorted({row.suite for row in own.rows}),
            "failed": without_figure(own.rows),
        }
    return found, answers.all_preserved


def _headroom(name: str, rows: Sequence[Row], items: Items) -> bool:
    """Whether base answers better than a guess; True of what is no answer."""
    if name not in _ANSWERS or not rows:
        return True
    groups = len({(row.suite, row.group) for row in rows})
    return above_chance(pooled(rows, "base_sum") or 0.0, groups, chance(rows, items))


def _measures(
    table: Table,
    measures: Mapping[str, Defined],
    seed: int,
    identical: bool,
    floors: Mapping[str, float],
    items: Items,
    thin: Mapping[str, str | None],
) -> dict[str, Any]:
    """Every measure of every suite; what applies to no item of a suite is left out.

    ``thin``: of a measure, why its figures say too little to be judged.
    """
    estimates: dict[tuple[str, str], Estimate] = {}
    for key, own in table.items():
        kept = [row for row in own if row.effect_sum is not None]
        if kept and measures[key[1]].pool == "mean":  # a root of means is `check`'s
            estimates[key] = estimate_rows(kept, measures[key[1]], seed)
    signed = [key for key, e in estimates.items() if e.p is not None]
    adjusted = dict(
        zip(signed, benjamini_hochberg([estimates[k].p or 0.0 for k in signed]), strict=True)
    )
    found: dict[str, Any] = {}
    for (suite, name), estimate in sorted(estimates.items()):
        own = table[suite, name]
        kept = [row for row in own if row.effect_sum is not None]
        m = measures[name]
        base, floor = pooled(kept, "base_sum"), floor_of(name, floors)
        # how far from always, since agreement is the one divergence whose zero is not 0
        judged = _complement(estimate) if name == "top1_agreement" else estimate
        verdict = judge(
            judged,
            direction=-1 if m.direction < 0 else 1 if m.direction > 0 else 0,
            margin=m.margin,
            adjusted_p=adjusted.get((suite, name)),
            floor=floor,
            divergence=m.direction == 0 and base is None,
            unit=m.unit,
            identical=identical,
            headroom=_headroom(name, kept, items),
        )
        if (reason := thin.get(name)) is not None and not identical:
            verdict = Verdict("unclear", reason)
        entry = {
            "unit": m.unit,
            "direction": m.direction,
            "margin": m.margin,
            "base": base,
            "tuned": pooled(kept, "tuned_sum"),
            **figures_of(estimate, adjusted.get((suite, name))),
            **said_of(verdict),
            "failed": without_figure(own),
        }
        if floor is not None:
            entry["noise_floor"] = floor
        if name in OUTCOMES and all(row.count == 1 for row in kept):
            sides = [[getattr(r, f"{side}_sum") for r in kept] for side in ("base", "tuned")]
            entry["base_only"], entry["tuned_only"] = discordant(*sides)
        found.setdefault(suite, {})[name] = entry
    return found


def _complement(e: Estimate) -> Estimate:
    """Of a share, the share that is not."""
    low, high = (None if end is None else 1 - end for end in (e.high, e.low))
    return replace(e, effect=1 - e.effect, low=low, high=high)


def _seed_deltas(table: Table) -> dict[str, float | None]:
    """The seed's two figures, item means over all replies: of length in words, and of coverage."""
    return {
        "avg_len_delta": _item_mean(table, "words"),
        "avg_cov_delta": _item_mean(table, "keyword_coverage"),
    }


def _item_mean(table: Table, name: str) -> float | None:
    effects = [
        row.effect_sum / row.count
        for (_, measure), own in table.items()
        if measure == name
        for row in own
        if row.effect_sum is not None and row.count
    ]
    return fsum(effects) / len(effects) if effects else None
