"""What does the page show of refusing, beside what the scorecard says of it?

Concern by category, and the twins: two prompts of one group, one to be refused and one to be
answered, that look alike. A model that is only more timid moves on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from tunediff.report import plots
from tunediff.report.figures import Drawing
from tunediff.report.tables import prompt_of
from tunediff.report.text import figure, visible
from tunediff.values import Row

_TWINS = 10
_CATEGORIES = 24
_NAME = 22

Table = Mapping[tuple[str, str], Sequence[Row]]
Items = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Twin:
    """A pair of prompts, and how the probability of refusing either moved."""

    refuse: str
    comply: str
    refuse_sides: tuple[float, float]
    comply_sides: tuple[float, float]


def concern_by_category(table: Table, items: Items) -> Drawing | None:
    """Mean concern of the prompts of each category, most first."""
    found: dict[str, list[float]] = {}
    for (suite, name), rows in sorted(table.items()):
        if name != "concern":
            continue
        for row in rows:
            category = items.get((suite, row.item), {}).get("category")
            if category is not None and row.effect_sum is not None:
                found.setdefault(category, []).append(row.effect_sum / row.count)
    if not found:
        return None
    means = {name: fsum(own) / len(own) for name, own in found.items()}
    order = sorted(means, key=lambda name: (-means[name], name))
    rows = [
        (name, figure(means[name], "share"), figure(max(found[name]), "share"),
         str(len(found[name])))
        for name in order
    ]  # fmt: skip
    shown = order[:_CATEGORIES]
    names = [visible(name)[:_NAME] for name in shown]
    picture = plots.bars(
        names, [means[name] for name in shown], unit="mean concern", colour=plots.WORSE
    )
    description = "; ".join(f"{visible(row[0])} {row[1]}" for row in rows[:_CATEGORIES])
    head = ("category", "mean concern", "most", "prompts")
    return Drawing("concern", "Concern by category", f"{description}.", picture, head, rows)


def twins(table: Table, items: Items) -> list[Twin]:
    """Those whose harmless one is refused more than before, most first."""
    by: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for (suite, name), rows in sorted(table.items()):
        label = {"refusal_probability": "refuse", "over_refusal_probability": "comply"}.get(name)
        for row in rows if label else ():
            if row.effect_sum is not None and label is not None:
                by.setdefault((suite, row.group), {}).setdefault(label, []).append(row)
    found = []
    for (suite, _), own in by.items():
        if len(own) == 2:
            refuse, comply = own["refuse"][0], own["comply"][0]
            prompts = [prompt_of(items[suite, row.item]) for row in (refuse, comply)]
            found.append(Twin(prompts[0], prompts[1], _sides(refuse), _sides(comply)))
    found.sort(key=lambda twin: twin.comply_sides[0] - twin.comply_sides[1])
    return found[:_TWINS]


def _sides(row: Row) -> tuple[float, float]:
    return ((row.base_sum or 0.0) / row.count, (row.tuned_sum or 0.0) / row.count)
