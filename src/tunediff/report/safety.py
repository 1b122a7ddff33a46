"""What does a person see of refusing, on what is to be refused and on what is not?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from tunediff.report.terminal import clean, columns, number

_SHOWN = 3  # prompts of the highest concern
LEAST_CONCERN = 0.01  # less is not worth a look
_REPLY = 150  # characters of a prompt or a reply
_OF = {"refuse": "to refuse", "comply": "to comply"}
_SCORERS = {"rules": "refused, by rules", "words": "refused, by words"}


def draw_safety(console: Console, safe: Mapping[str, Any]) -> None:
    """The entry ``safety`` of a variant, as a section of the scorecard."""
    drawn = columns("safety", "prompts", "base", "tuned", "change", "", left=(0, 1, 5))
    for label, of in _OF.items():
        _row(drawn, "refusal probability", of, safe["probability"][label])
    for scorer, name in _SCORERS.items():
        for label, of in _OF.items():
            found = safe["refused"][label][scorer]
            if found is not None:
                sides = {side: found[side]["share"] for side in ("base", "tuned")}
                lost, won = found["base_only"], found["tuned_only"]
                flips = f"{lost} no more, {won} new" if lost or won else ""
                _row(drawn, name, of, sides, flips)
    if not drawn.row_count:
        return
    console.print()
    console.print(drawn)
    lines = []
    if (safe["over_cautious"] or {}).get("verdict") == "unclear":
        lines.append(f"over-cautious? {safe['over_cautious']['reason']}")
    for label, of in _OF.items():
        lost = safe["incoherent"][label]
        if lost is not None and (lost["base"] or lost["tuned"]):
            lines.append(
                f"Empty or degenerate on prompts {of}, and so neither: base {lost['base']}, tuned "
                f"{lost['tuned']}, of {lost['of']} each."
            )
    console.print(Text("\n".join(lines), style="yellow"), end="\n" if lines else "")
    console.print(Text(_moved(safe), style="dim"), end="\n" if _moved(safe) else "")
    for line in worth_a_look(safe)[:_SHOWN]:
        _side_by_side(console, line)


def worth_a_look(safe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The prompts that lost at least a point of refusal probability, or a refusal."""
    return [
        line
        for line in safe["highest_concern"]
        if line["concern"] is None or line["concern"] >= LEAST_CONCERN
    ]


def _row(drawn: Any, name: str, of: str, sides: Mapping[str, float] | None, note: str = "") -> None:
    if sides is not None:
        base, tuned = sides["base"], sides["tuned"]
        change = round(tuned - base, 4) + 0.0  # no negative zero
        shown = (number(base, ".1%"), number(tuned, ".1%"), number(change, "+.1%"))
        drawn.add_row(name, of, *shown, Text(note, style="dim"))


def _moved(safe: Mapping[str, Any]) -> str:
    """How far the models part: the logits at the first token, and where KL is larger."""
    parts = []
    l2, drift = safe["logit_l2"], safe["drift"]
    if all(value is not None for value in l2.values()):
        parts.append(
            f"Logits at the reply's first token: L2 {l2['refuse']:.3g} where to refuse, "
            f"{l2['comply']:.3g} where to comply."
        )
    if drift["ratio"] is not None:
        interval = "no interval"
        if drift["low"] is not None:
            interval = f"{drift['low']:+.3g} … {drift['high']:+.3g}"
        parts.append(
            f"Drift ratio {drift['ratio']:+.3g} ({interval}): ln of KL where to refuse over KL "
            "where to comply."
        )
    return " ".join(parts)


def _side_by_side(console: Console, line: Mapping[str, Any]) -> None:
    said = (
        ": base refused and tuned did not, by words"
        if line["concern"] is None
        else f": refusal probability lost {number(line['concern'], '.1%')}"
    )
    console.print()
    where = f"{clean(line['suite'], 20)} '{clean(line['item'], 30)}'"
    console.print(Text(f"Concern, {where}{said}", style="bold"))
    console.print(Text(f"  asked  {clean(line['prompt'], _REPLY)}"))
    for side in ("base", "tuned"):
        reply = line[f"{side}_reply"]
        if reply is not None:
            console.print(Text(f"  {side:5}  {clean(reply, _REPLY)}"))
