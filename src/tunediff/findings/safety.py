"""What became of refusing: on what is to be refused, on what is not, and where is it worst?

The axis safety is judged in ``scorecard.py``, by the probability of refusing on prompts labelled
refuse. Here stand the same figure on prompts labelled comply, which must not rise, what the replies
do by both scorers, and how far the two models part. Everything follows from the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import fsum, log
from typing import Any

import numpy as np

from tunediff.findings.decide import PRESERVED, judge
from tunediff.findings.estimates import group_of
from tunediff.findings.exploring import Table
from tunediff.findings.figures import Defined, estimate_rows, figures_of, pooled, said_of
from tunediff.findings.intervals import FEWEST_GROUPS, TOO_FEW, TOO_SPARSE, Interval, bca_interval
from tunediff.findings.primary import Items, too_thin
from tunediff.findings.proportions import discordant
from tunediff.measures.refusals import SCORERS, incoherent
from tunediff.run.store import Run
from tunediff.values import Item, Reply, Row, Verdict

LABELS = ("refuse", "comply")
MOST_CONCERN = 10

_BY_SCORER = {
    "refuse": {"rules": "refused", "words": "refused_by_words"},
    "comply": {"rules": "over_refusal", "words": "over_refusal_by_words"},
}
PROBABILITY = {"refuse": "refusal_probability", "comply": "over_refusal_probability"}


def reads(axis: Mapping[str, Any], comply: Mapping[str, Any] | None) -> str:
    """The axis' verdict in its own words: eroded, over-cautious, preserved or unclear."""
    if axis["verdict"] == "degraded":
        return "eroded"
    if comply is not None and comply["verdict"] == "degraded":
        return "over-cautious"
    return "preserved" if axis["verdict"] in PRESERVED else axis["verdict"].replace("_", " ")


def over_cautious(safe: Mapping[str, Any] | None) -> bool:
    """Whether refusing has risen, beyond the margin, where it should not."""
    return safe is not None and (safe["over_cautious"] or {}).get("verdict") == "degraded"


def safety(
    run: Run, table: Table, items: Items, axis: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The entry ``safety`` of a variant; None where no prompt has a label.

    ``axis``: that of the scorecard, whose level the verdict on over-caution has.
    """
    if not any(item.get("label") for item in items.values()):
        return None
    measures, seed = Defined.of(run.record), run.record["identity"]["seed"]
    identical = run.record["found"]["certificate"]["weights_equal"]
    level = 0.95 if axis is None else axis["level"]
    replies, probes = run.replies(), _probes(run, items)
    comply = _over_caution(table, items, measures, seed, identical, level)
    return {
        "over_cautious": comply,
        **{
            name: {label: _sides(table, items, of[label], label) for label in LABELS}
            for name, of in (
                ("probability", PROBABILITY),
                ("log_odds", dict.fromkeys(LABELS, "refusal_log_odds")),
                ("openings_mass", dict.fromkeys(LABELS, "openings_mass")),
            )
        },
        "refused": {
            label: {
                scorer: _refused(table, items, measures, seed, name, label, replies)
                for scorer, name in _BY_SCORER[label].items()
            }
            for label in LABELS
        },
        "disagreement": {
            label: _sides(table, items, "refusal_disagreement", label) for label in LABELS
        },
        "incoherent": {label: _incoherent(replies, items, label) for label in LABELS},
        "drift": _drift(run, table, items, seed),
        "logit_l2": {label: _logit_l2(probes, items, label) for label in LABELS},
        "highest_concern": _highest(table, items, replies, probes),
    }


def _labelled(table: Table, items: Items, measure: str, label: str) -> list[Row]:
    """A measure's rows with a figure, of the prompts with a label."""
    return [
        row
        for (suite, name), own in sorted(table.items())
        if name == measure
        for row in own
        if row.effect_sum is not None and items.get((suite, row.item), {}).get("label") == label
    ]


def _sides(table: Table, items: Items, measure: str, label: str) -> dict[str, float] | None:
    rows = _labelled(table, items, measure, label)
    base, tuned = pooled(rows, "base_sum"), pooled(rows, "tuned_sum")
    return None if base is None or tuned is None else {"base": base, "tuned": tuned}


def _over_caution(
    table: Table,
    items: Items,
    measures: Mapping[str, Defined],
    seed: int,
    identical: bool,
    level: float,
) -> dict[str, Any] | None:
    # by the replies where the pair has no log-probabilities, as with recorded ones
    for name in (PROBABILITY["comply"], _BY_SCORER["comply"]["words"]):
        if rows := _labelled(table, items, name, "comply"):
            break
    else:
        return None
    m = measures[name]
    sides = {"base": pooled(rows, "base_sum"), "tuned": pooled(rows, "tuned_sum")}
    stated = {"measure": name, "margin": m.margin, **sides}
    every = (row for own in table.values() for row in own)
    thin = None if identical else too_thin(every, items, "comply")
    if thin is not None:
        return {**stated, **figures_of(None, None), **said_of(Verdict("unclear", thin))}
    verdict = judge(
        estimate_rows(rows, m, seed, level),
        direction=-1,
        margin=m.margin,
        adjusted_p=None,
        level=level,
        unit=m.unit,
        identical=identical,
    )
    return {**stated, **figures_of(verdict.estimates["effect"], None), **said_of(verdict)}


def _refused(
    table: Table,
    items: Items,
    measures: Mapping[str, Defined],
    seed: int,
    name: str,
    label: str,
    replies: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | None:
    """What one scorer says of the replies to one label's prompts, both of which are coherent."""
    rows = _labelled(table, items, name, label)
    if not rows:
        return None
    score = SCORERS[next(s for s, measure in _BY_SCORER[label].items() if measure == name)]
    measured = {(row.suite, row.item, row.sample) for row in rows}
    classes: dict[str, Counter[str]] = {"base": Counter(), "tuned": Counter()}
    for line in replies:
        if (line["suite"], line["item"], line["sample"]) in measured:
            prompt = _prompt(items[line["suite"], line["item"]])
            for side, counts in classes.items():
                counts[score(prompt, line[side]["text"])] += 1
    sums = [[getattr(row, f"{side}_sum") for row in rows] for side in ("base", "tuned")]
    base_only, tuned_only = discordant(*sums)
    return {
        **{
            side: {"share": pooled(rows, f"{side}_sum"), **{k: c[k] for k in _CLASSES}}
            for side, c in classes.items()
        },
        **figures_of(estimate_rows(rows, measures[name], seed), None),
        "base_only": base_only,
        "tuned_only": tuned_only,
    }


_CLASSES = ("full", "partial", "none")


def _prompt(item: Mapping[str, Any]) -> str:
    """The prompt's text: of a conversation, what the user said last."""
    if item.get("messages"):
        said = [m["content"] for m in item["messages"][:-1] if m["role"] == "user"]
        return said[-1] if said else ""
    return item.get("prompt") or ""


def _incoherent(
    replies: Sequence[Mapping[str, Any]], items: Items, label: str
) -> dict[str, int] | None:
    """How many replies of either side are empty or end in a loop, of how many."""
    own = [r for r in replies if items.get((r["suite"], r["item"]), {}).get("label") == label]
    if not own:
        return None
    nobody = Item("")
    counted = {
        side: sum(incoherent(nobody, Reply(line[side]["text"])) is not None for line in own)
        for side in ("base", "tuned")
    }
    return {**counted, "of": len(own)}


def _drift(run: Run, table: Table, items: Items, seed: int) -> dict[str, Any]:
    """Ln of mean KL on refuse prompts over mean KL on comply prompts, and its interval.

    Over the first eight tokens of base's greedy reply; BCa over groups, resampled within those that
    hold one label, the other, or both.
    """
    found: dict[str, Any] = dict.fromkeys(("ratio", "low", "high", *LABELS, "floor", "note"))
    generation = run.record["identity"]["generation"]
    if generation is not None and generation["temperature"] > 0:
        return {**found, "note": "Replies were sampled, and the ratio is one of greedy replies."}
    rows = {k: _labelled(table, items, "kl_of_base_reply_start", k) for k in LABELS}
    if not all(rows.values()):
        return {**found, "note": "No reply of base to a prompt of either label was scored."}
    means = {k: fsum(r.effect_sum or 0.0 for r in own) / sum(r.count for r in own)
             for k, own in rows.items()}  # fmt: skip
    floor = run.record["found"]["noise_floor"].get("kl_base_tuned")
    found |= {**means, "floor": floor}
    if floor is None:
        return {**found, "note": "No noise floor of KL is known."}
    if min(means.values()) <= floor:
        return {**found, "note": "The lower mean KL is not above the noise floor."}
    interval = _drift_interval(rows, seed)
    ends = {"low": interval.low, "high": interval.high, "note": interval.note or None}
    return {**found, "ratio": log(means["refuse"] / means["comply"]), **ends}


def _drift_interval(rows: Mapping[str, Sequence[Row]], seed: int) -> Interval:
    sums: dict[str, np.ndarray] = {}  # group: KL and count of refuse, of comply
    for k, label in enumerate(LABELS):
        for row in rows[label]:
            own = sums.setdefault(group_of(row), np.zeros(4))
            own[2 * k : 2 * k + 2] += row.effect_sum, row.count
    held = {name: (bool(own[1]), bool(own[3])) for name, own in sums.items()}
    names = sorted(sums, key=lambda name: (held[name], name))
    table = np.array([sums[name] for name in names])  # (G, 4)
    kl, asked = table[:, [0, 2]], table[:, [1, 3]] > 0
    if asked.sum(axis=0).min() < FEWEST_GROUPS:
        return Interval(None, None, None, TOO_FEW)
    if not kl[asked].all():  # a resample could be of such groups alone, and have no logarithm
        return Interval(None, None, None, TOO_SPARSE)

    def ratio(w: np.ndarray) -> np.ndarray:
        kl, n, kl_comply, n_comply = (w @ table).T
        return np.log(kl / n) - np.log(kl_comply / n_comply)

    strata = [n for _, n in sorted(Counter(held.values()).items())]
    return bca_interval(ratio, len(names), seed=seed, strata=strata)


def _probes(run: Run, items: Items) -> dict[tuple[str, str], Mapping[str, Any]]:
    """What both sides expect first, of labelled prompts where it is known."""
    return {
        (p["suite"], p["item"]): p
        for p in run.probes()
        if p["reason"] is None and items.get((p["suite"], p["item"]), {}).get("label")
    }


def _logit_l2(
    probes: Mapping[tuple[str, str], Mapping[str, Any]], items: Items, label: str
) -> float | None:
    """Mean over prompts of the logits' distance at the reply's first position."""
    own = [p["probe_logit_l2"] for key, p in probes.items() if items[key]["label"] == label]
    return fsum(own) / len(own) if own and None not in own else None


def _highest(
    table: Table,
    items: Items,
    replies: Sequence[Mapping[str, Any]],
    probes: Mapping[tuple[str, str], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The prompts with the highest concern, both replies and both sides' first tokens beside.

    Without log-probabilities: those that base refused and tuned did not, by words.
    """
    p = {(r.suite, r.item): r for r in _labelled(table, items, PROBABILITY["refuse"], "refuse")}
    found: list[tuple[float, str, str, float | None]] = []
    for row in _labelled(table, items, "concern", "refuse"):
        if row.effect_sum:
            found.append((-row.effect_sum, row.suite, row.item, row.effect_sum))
    if not p:
        lost = _labelled(table, items, _BY_SCORER["refuse"]["words"], "refuse")
        keys = dict.fromkeys((r.suite, r.item) for r in lost if (r.effect_sum or 0) < 0)
        found = [(0.0, suite, item, None) for suite, item in keys]
    first = {(r["suite"], r["item"]): r for r in reversed(replies)}
    lines = []
    for _, suite, name, concern in sorted(found, key=lambda f: f[:3])[:MOST_CONCERN]:
        key = suite, name
        item, row, said, probe = items[key], p.get(key), first.get(key), probes.get(key)
        lines.append({
            "suite": suite, "item": name, "category": item.get("category"),
            "prompt": _prompt(item), "concern": concern,
            **{f"{s}_p": getattr(row, f"{s}_sum") if row else None for s in ("base", "tuned")},
            **{f"{s}_reply": said[s]["text"] if said else None for s in ("base", "tuned")},
            **{f"{s}_next": [[text, p] for _, p, text in probe[f"probe_top_{s}"]] if probe else None
               for s in ("base", "tuned")},
        })  # fmt: skip
    return lines
