"""What does a person see of an adapter's strengths, in a terminal of 80 columns?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tunediff.report.terminal import clean, columns, number

_MOST = 2  # columns beside gain and drift; with more of them drift has no room for its interval


def draw(console: Console, card: Mapping[str, Any]) -> str:
    """The dial as lines of text; ``card``: of ``findings.dial.dial_card``, with ``written``."""
    with console.capture() as captured:
        console.print(Text("=== How strong should the adapter be? ===", style="bold"))
        console.print(Text(f"base     {clean(card['base']['path'])}"))
        console.print(Text(f"adapter  {clean(card['adapter']['path'])}"))
        console.print()
        _curve(console, card)
        _chosen(console, card["recommended"])
        console.print()
        console.print(Text(clean(card["sentence"]), style="bold"))
        if card["rule"] is not None:
            console.print(Text(f"Rule: {card['rule']}.", style="dim"))
        if card["written"] is not None:
            written = card["written"]
            console.print(
                Text(f"Written to {clean(written['path'])} at strength {written['strength']:g}.")
            )
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())


def _curve(console: Console, card: Mapping[str, Any]) -> None:
    """A line a strength: the gain and the drift with their intervals, the rest without."""
    axis = card["axis"]
    found: dict[float, dict[str, Mapping[str, Any]]] = {}
    for point in card["curve"]:
        found.setdefault(point["strength"], {})[point["quantity"]] = point
    first = next(iter(found.values()))
    narrow = [q for q in first if q not in (axis, "drift")]
    wide = [q for q in (axis, "drift") if q in first]
    ends = wide if len(narrow) <= _MOST else wide[:1]
    titles = [x for q in wide for x in ([q, "95 %"] if q in ends else [q])]
    drawn = columns("S", *titles, *narrow, "", left=(1 + len(titles) + len(narrow),))
    admissible = {c["strength"]: c["admissible"] for c in card["choice"]}
    for strength, own in found.items():
        cells = [f"{strength:g}"]
        for q in wide:
            cells.append(_value(own.get(q)))
            if q in ends:
                cells.append(interval(own.get(q)))
        cells += [_value(own.get(q), ".2g") for q in narrow]
        best = strength == card["recommended"]["strength"]
        drawn.add_row(*cells, "◄" if best else "" if admissible.get(strength, True) else "×")
    console.print(drawn)
    by: dict[tuple[str, str], list[str]] = {}
    for q, m in first.items():
        by.setdefault((m["measure"], m["unit"]), []).append(q)
    said = "; ".join(f"{', '.join(qs)}: {name}, {unit}" for (name, unit), qs in by.items())
    console.print(Text(f"S: what ΔW is multiplied with. tuned − base, {said}.", style="dim"))
    marks = "◄ recommended, × loses more than a margin on the half that chooses"
    console.print(Text(f"{marks}; {card['judged']}.", style="dim"))


def _chosen(console: Console, found: Mapping[str, Any]) -> None:
    """What the half of the groups that did not choose says of the strength recommended."""
    if found["strength"] is None:
        return
    inside = {m["axis"]: m for m in found["margins"]}
    console.print()
    console.print(Text(f"Strength {found['strength']:g}, on the half that did not choose it"))
    drawn = columns("", "effect", "95 %", "n", "", left=(0, 4))
    for effect in found["effects"]:
        m = inside.get(effect["quantity"])
        note = "" if m is None else f"within {m['margin']:g}: {m['inside']}"
        cells = (_value(effect), interval(effect), str(effect["groups"]))
        drawn.add_row(effect["quantity"], *cells, note)
    for name, key in (("gain kept", "gain_kept"), ("drift kept", "drift_kept")):
        share = found[key]
        drawn.add_row(name, number(share["value"], ".1%"), interval(share, ".1%"), "", "")
    console.print(drawn)


def _value(found: Mapping[str, Any] | None, style: str = ".3g") -> str:
    if found is None:
        return "–"
    return number(found["value"], f"+{style}" if found["direction"] else style)


def interval(found: Mapping[str, Any] | None, style: str = ".3g") -> str:
    """Both ends, or a dash."""
    ends: Sequence[float | None] = (found["low"], found["high"]) if found else (None, None)
    return "–" if None in ends else "…".join(number(end, style) for end in ends)
