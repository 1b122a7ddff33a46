"""What does the table of items in the page hold: prompts, replies, figures, reasons?

One object, embedded as JSON and drawn by the page's script. The items stand once; each variant
has its replies and figures of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunediff.findings.microscope import Microscope
from tunediff.report.glossary import label
from tunediff.report.tables import prompt_of
from tunediff.report.tokens import looked
from tunediff.run.store import Run
from tunediff.values import Row

_CAPS = (100_000, 20_000, 5_000, 2_000, 1_000)  # characters of a text that are kept in the page
_ROOM = 1_000_000  # characters of all texts together
_COMMON = 40  # characters before the place where two replies part
_DIGITS = ".5g"


def browsed(
    runs: Sequence[Run],
    names: Sequence[str],
    scopes: Sequence[Microscope],
    judged: Sequence[str],
) -> dict[str, Any]:
    """The object of the table.

    Args:
        runs: of one base.
        names: what each is called.
        scopes: of the runs.
        judged: the measures that judge the axes; the list is ordered by the first of them.

    """
    rows = [run.rows() for run in runs]
    items: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        for item in run.items():  # as asked
            items.setdefault((item["suite"], item["id"]), _asked(item))
    for row in (row for own in rows for row in own):
        items.setdefault((row.suite, row.item), _unknown(row))
    places = {key: k for k, key in enumerate(items)}
    replies = [_replies(run, places) for run in runs]
    cap = _cap([*(_texts(item) for item in items.values()), *map(_said, replies)])
    for item in items.values():
        for key in ("prompt", "reference"):
            item[key] = _cut(item[key], cap)
    return {
        "items": list(items.values()),
        "cap": cap,
        "judged": list(judged),
        "variants": [
            {
                "name": name,
                **_figures(run, own, places),
                "replies": _all_cut(said, cap),
                "partings": _partings(run, scope, places),
                "tokens": looked(scope, places, 1 / len(runs)),
            }
            for name, run, own, said, scope in zip(names, runs, rows, replies, scopes, strict=True)
        ],
    }


def reference_of(item: Mapping[str, Any]) -> str | None:
    """What the item holds to be right; None where it says nothing."""
    if item["choices"]:
        right = item["answer"]
        return None if right is None else item["choices"][right].strip()
    if item["messages"]:
        return item["messages"][-1]["content"]
    return item["reply"]


def _asked(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": item["id"],
        "suite": item["suite"],
        "axis": item["axis"],
        "prompt": prompt_of(item),
        "reference": reference_of(item),
        "tags": [item[key] for key in ("label", "category") if item.get(key)],
    }


def _unknown(row: Row) -> dict[str, Any]:
    """An item of which the run holds figures alone, as one of ``check`` does."""
    return {"id": row.item, "suite": row.suite, "axis": row.axis, "prompt": None,
            "reference": None, "tags": []}  # fmt: skip


def _replies(run: Run, places: Mapping[tuple[str, str], int]) -> dict[int, list[list[str]]]:
    """By item, of each sample: base's text and stop, tuned's text and stop."""
    found: dict[int, list[list[str]]] = {}
    for line in run.replies():
        said = [line[side][key] for side in ("base", "tuned") for key in ("text", "stop")]
        found.setdefault(places[line["suite"], line["item"]], []).append(said)
    return found


def _figures(
    run: Run, rows: Sequence[Row], places: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """Each measure's columns (item, base, tuned, effect), and why an item has no figure."""
    sums: dict[str, dict[int, list[float | None]]] = {}
    reasons: dict[str, int] = {}
    missing: dict[str, dict[int, int]] = {}
    for row in rows:
        place = places[row.suite, row.item]
        if row.effect_sum is None:
            reason = reasons.setdefault(row.reason or "", len(reasons))
            missing.setdefault(row.measure, {}).setdefault(place, reason)
        elif row.count:
            own = sums.setdefault(row.measure, {}).setdefault(place, [0.0, 0.0, 0.0, 0.0])
            for k, part in enumerate((row.base_sum, row.tuned_sum, row.effect_sum, row.count)):
                kept = own[k]
                own[k] = None if part is None or kept is None else kept + part
    defined = run.record["identity"]["measures"]
    measures = []
    for name in sorted({*sums, *missing}, key=label):
        own = sums.get(name, {})
        columns = [list(own), *([_mean(v[k], v[3]) for v in own.values()] for k in range(3))]
        lacking = {k: r for k, r in missing.get(name, {}).items() if k not in own}
        m = defined[name]
        measures.append(
            {
                "name": name,
                "label": label(name),
                "unit": m["unit"],
                "direction": m["direction"],
                "margin": m["margin"],
                "figures": columns,
                "missing": [list(lacking), list(lacking.values())],
            }
        )
    return {"measures": measures, "reasons": list(reasons)}


def _partings(
    run: Run, scope: Microscope, places: Mapping[tuple[str, str], int]
) -> dict[int, tuple[int, str]]:
    """By item whose greedy replies part: after how many tokens, and the end of what is common."""
    generation = run.record["identity"].get("generation")
    if generation is None or generation["temperature"] > 0:
        return {}
    found = {}
    for key, place in places.items():
        parting = scope.parting(*key)
        if parting is not None and parting.part and parting.token is not None:
            found[place] = parting.token, parting.common[-_COMMON:]
    return found


def _mean(total: float | None, count: float | None) -> float | None:
    return None if total is None or not count else float(format(total / count, _DIGITS))


def _texts(item: Mapping[str, Any]) -> list[str]:
    return [item[key] for key in ("prompt", "reference") if item[key] is not None]


def _said(replies: Mapping[int, Sequence[Sequence[str]]]) -> list[str]:
    return [text for own in replies.values() for said in own for text in (said[0], said[2])]


def _cap(texts: Sequence[Sequence[str]]) -> int:
    """The largest of the caps with which all texts fit into the page."""
    lengths = [len(text) for own in texts for text in own]
    fitting = (cap for cap in _CAPS if sum(min(n, cap) for n in lengths) <= _ROOM)
    return next(fitting, _CAPS[-1])


def _cut(text: str | None, cap: int) -> str | None:
    if text is None or len(text) <= cap:
        return text
    return f"{text[:cap]} […{len(text) - cap} more characters are in the run folder]"


def _all_cut(
    replies: Mapping[int, Sequence[Sequence[str]]], cap: int
) -> dict[int, list[list[str | None]]]:
    return {
        place: [[_cut(a, cap), stop_a, _cut(b, cap), stop_b] for a, stop_a, b, stop_b in own]
        for place, own in replies.items()
    }
