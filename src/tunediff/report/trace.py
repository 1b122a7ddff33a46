"""What does a person see of an adapter's parts, in a terminal of 80 columns?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from tunediff.report.dial import interval
from tunediff.report.terminal import clean, columns, number

_HEADS = {
    ("layer", "off"): "What is lost without a layer",
    ("layer", "alone"): "What a layer does alone",
    ("module", "off"): "What is lost without a kind of module",
    ("module", "alone"): "What a kind of module does alone",
}


def draw(console: Console, card: Mapping[str, Any]) -> str:
    """The trace as lines of text; ``card``: of ``findings.trace.trace_card``."""
    with console.capture() as captured:
        console.print(Text("=== Which parts carry the change? ===", style="bold"))
        console.print(Text(f"base     {clean(card['base']['path'])}"))
        console.print(Text(f"adapter  {clean(card['adapter']['path'])}"))
        for by, way in dict.fromkeys((p["by"], p["way"]) for p in card["parts"]):
            _table(console, card, by, way)
        said: dict[tuple[str, str], list[str]] = {}
        for m in card["whole"]:
            said.setdefault((m["measure"], m["unit"]), []).append(m["quantity"])
        units = "; ".join(f"{', '.join(qs)}: {name}, {unit}" for (name, unit), qs in said.items())
        console.print()
        console.print(Text(f"Figures are parts of tuned − base, {units}.", style="dim"))
        console.print(Text("Parts are exploratory; sum: of the lines above it.", style="dim"))
        for sentence in card["sentences"]:
            console.print(Text(clean(sentence)))
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())


def _table(console: Console, card: Mapping[str, Any], by: str, way: str) -> None:
    """A line a group: the first axis with its interval and share, the others without."""
    quantities = [m["quantity"] for m in card["whole"]]
    first = card["axis"] or next(iter(quantities), None)
    rest = [q for q in quantities if q != first]
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for part in card["parts"]:
        if (part["by"], part["way"]) == (by, way):
            found.setdefault(part["group"], {})[part["quantity"]] = part
    console.print()
    console.print(Text(_HEADS[by, way], style="bold"))
    if first is None:
        return
    drawn = columns("", "modules", first, "95 %", "share", *rest, left=(0,))
    for group, own in found.items():
        one = own[first]
        drawn.add_row(
            Text(clean(group, 20)),
            str(one["modules"]),
            number(one["value"], "+.3g"),
            interval(one),
            number(one["share"], ".0%"),
            *(number(own[q]["value"], "+.2g") for q in rest),
        )
    sums = {x["quantity"]: x for x in card["additivity"] if (x["by"], x["way"]) == (by, way)}
    whole = {m["quantity"]: m for m in card["whole"]}
    sums_rest = (number(sums[q]["sum"], "+.2g") for q in rest)
    drawn.add_row("sum", "", number(sums[first]["sum"], "+.3g"), "", "", *sums_rest)
    drawn.add_row(
        "whole",
        "",
        number(whole[first]["value"], "+.3g"),
        interval(whole[first]),
        "",
        *(number(whole[q]["value"], "+.2g") for q in rest),
    )
    console.print(drawn)
