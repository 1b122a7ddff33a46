"""Where a run folder holds a study, what do its curves look like?

``dial.json``: effects by the adapter's strength. ``trace.json``: what each part of it carries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunediff.errors import RunError
from tunediff.report import plots
from tunediff.report.figures import Drawing
from tunediff.report.glossary import label
from tunediff.report.text import figure, visible

SCHEMA_VERSION = 1
_NAME = 22


@dataclass(frozen=True)
class Study:
    """What a study says: its title, sentences, drawings; and which of its runs have a chapter."""

    title: str
    sentences: list[str]
    rule: str
    drawings: list[Drawing]
    shown: list[str]


def study_of(folder: Path) -> Study | None:
    """The study that a folder holds; None where it holds none.

    Raises:
        RunError: its file is damaged, or from a newer tunediff.

    """
    for name, made in (("dial.json", _dial), ("trace.json", _trace)):
        path = folder / name
        if not path.is_file():
            continue
        try:
            card = json.loads(path.read_bytes())
            if card["schema_version"] > SCHEMA_VERSION:
                raise RunError(
                    f"{path} has schema version {card['schema_version']}; this tunediff reads up "
                    f"to {SCHEMA_VERSION}.",
                    "Install a newer tunediff.",
                )
            return made(card)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} is damaged: {error!r}.", "Run the same command with the same --out again."
            ) from error
    return None


def _dial(card: Mapping[str, Any]) -> Study:
    best = card["recommended"]["strength"]
    drawings = []
    for quantity in dict.fromkeys(line["quantity"] for line in card["curve"]):
        own = [x for x in card["curve"] if x["quantity"] == quantity and x["value"] is not None]
        if own:
            drawings.append(_curve(quantity, own, best))
    names = {line["strength"]: line["name"] for line in card["curve"]}
    shown = [names[s] for s in dict.fromkeys((best, 1.0)) if s in names and s]
    return Study("How strong should the adapter be?", [card["sentence"]], card["rule"] or "",
                 drawings, shown)  # fmt: skip


def _curve(quantity: str, own: Sequence[Mapping[str, Any]], best: float | None) -> Drawing:
    first = own[0]
    unit = first["unit"]
    picture = plots.curve(
        [x["strength"] for x in own],
        [x["value"] for x in own],
        [x["low"] for x in own],
        [x["high"] for x in own],
        margin=first["margin"] if quantity == first["axis"] else None,
        direction=first["direction"],
        xlabel="strength of the adapter",
        ylabel=unit,
        marked=best,
    )
    rows = [
        (figure(x["strength"]), *(figure(x[k], unit, sign=True) for k in ("value", "low", "high")))
        for x in own
    ]
    title = quantity if quantity == first["axis"] else f"{quantity} ({first['axis']})"
    ends = f"{rows[0][1]} at strength {rows[0][0]}, {rows[-1][1]} at strength {rows[-1][0]}"
    description = f"{label(first['measure'])}, tuned − base: {ends}."
    head = ("strength", "effect", "low", "high")
    return Drawing(f"dial-{quantity}", title, description, picture, head, rows)


def _trace(card: Mapping[str, Any]) -> Study:
    drawings = []
    keys = dict.fromkeys((x["quantity"], x["by"], x["way"]) for x in card["parts"])
    for quantity, by, way in keys:
        own = [
            x
            for x in card["parts"]
            if (x["quantity"], x["by"], x["way"]) == (quantity, by, way) and x["value"] is not None
        ]
        if not own:
            continue
        unit = own[0]["unit"]
        picture = plots.bars(
            [visible(x["group"])[:_NAME] for x in own],
            [x["value"] for x in own],
            unit=unit,
            lows=[x["low"] for x in own],
            highs=[x["high"] for x in own],
        )
        rows = [
            (x["group"], *(figure(x[k], unit, sign=True) for k in ("value", "low", "high")),
             figure(x["share"], "share"))
            for x in own
        ]  # fmt: skip
        what = "lost without it" if way == "off" else "of it alone"
        most = max(own, key=lambda x: abs(x["value"]))
        description = f"{quantity}, {what}, by {by}; most: {visible(most['group'])}."
        head = (by, "effect", "low", "high", "of the whole")
        title = f"{quantity}: effect {what}, by {by}"
        drawings.append(
            Drawing(f"trace-{quantity}-{by}-{way}", title, description, picture, head, rows)
        )
    return Study("Which parts carry the change?", list(card["sentences"]), "", drawings, ["whole"])
