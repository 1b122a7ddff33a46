"""Where a run folder holds a study, what do its curves look like?

``dial.json``: effects by the adapter's strength. ``trace.json``: what each part of it carries.
``sweep.json``: gain against loss and cost of every setting, and how the loss fell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunediff.errors import RunError
from tunediff.report import plots, study_plots
from tunediff.report.figures import Drawing
from tunediff.report.glossary import label
from tunediff.report.text import figure, visible

SCHEMA_VERSION = 1
_NAME = 22
_CHAPTERS = 3  # of a sweep that recommends nothing
_CELLS, _COMPARE = "cells", "compare"  # folders of a sweep


@dataclass(frozen=True)
class Study:
    """What a study says: its title, sentences, drawings; and which of its runs have a chapter."""

    title: str
    sentences: list[str]
    rule: str
    drawings: list[Drawing]
    shown: list[str]
    runs: Path  # the folder of the runs
    hint: str  # how its drawings are read


def study_of(folder: Path) -> Study | None:
    """The study that a folder holds; None where it holds none.

    Raises:
        RunError: its file is damaged, or from a newer tunediff.

    """
    for name, made in (("dial.json", _dial), ("trace.json", _trace), ("sweep.json", _sweep)):
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
            return made(card, folder)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} is damaged: {error!r}.", "Run the same command with the same --out again."
            ) from error
    return None


def _dial(card: Mapping[str, Any], folder: Path) -> Study:
    best = card["recommended"]["strength"]
    drawings = []
    for quantity in dict.fromkeys(line["quantity"] for line in card["curve"]):
        own = [x for x in card["curve"] if x["quantity"] == quantity and x["value"] is not None]
        if own:
            drawings.append(_curve(quantity, own, best))
    names = {line["strength"]: line["name"] for line in card["curve"]}
    shown = [names[s] for s in dict.fromkeys((best, 1.0)) if s in names and s]
    return Study("How strong should the adapter be?", [card["sentence"]], card["rule"] or "",
                 drawings, shown, folder,
                 "Bars: 95 % intervals over items. Shaded: the margin.")  # fmt: skip


def _curve(quantity: str, own: Sequence[Mapping[str, Any]], best: float | None) -> Drawing:
    first = own[0]
    unit = first["unit"]
    picture = study_plots.curve(
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


def _trace(card: Mapping[str, Any], folder: Path) -> Study:
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
    return Study("Which parts carry the change?", list(card["sentences"]), "", drawings, ["whole"],
                 folder, "Thin lines: 95 % intervals over items.")  # fmt: skip


def _sweep(card: Mapping[str, Any], folder: Path) -> Study:
    best = card["recommendation"]
    cells = [cell for cell in card["cells"] if not cell["failed"]]
    drawings = []
    for flag, cost, title in (
        ("frontier_loss", "general_loss", "Gain on target against loss on general"),
        ("frontier_flops", "training_flops", "Gain on target against the cost of training"),
    ):
        own = [c for c in cells if c["target_gain"] is not None and c[cost] is not None]
        if own:
            drawings.append(_frontier(own, flag, cost, title, best["name"], card["measures"]))
    chosen = [c["name"] for c in cells if c["setting"] == best["name"]]
    shown = chosen or [c["name"] for c in cells[:_CHAPTERS]]
    curves = _losses(folder, shown)
    if curves is not None:
        drawings.append(curves)
    said = f"No setting is recommended: {best['reason']}."
    if best["name"] is not None:
        said = f"{best['name']} is recommended."
    failed = [f"{c['name']} failed: {c['failed']}" for c in card["cells"] if c["failed"]]
    return Study("Which setting is worth its cost?", [said, *card["advice"], *failed],
                 best["rule"], drawings, shown, folder / _COMPARE,
                 "Each point is one setting.")  # fmt: skip


def _frontier(
    own: Sequence[Mapping[str, Any]],
    flag: str,
    cost: str,
    title: str,
    best: str | None,
    measures: Mapping[str, Mapping[str, Any]],
) -> Drawing:
    units = {axis: measures[axis]["unit"] for axis in measures}
    flops = cost == "training_flops"
    xlabel = "training FLOPs" if flops else f"loss on general, {units['general']}"
    picture = study_plots.frontier(
        [c["target_gain"] for c in own],
        [c[cost] for c in own],
        [bool(c[flag]) for c in own],
        [c["setting"] == best for c in own],
        xlabel=xlabel,
        ylabel=f"gain on target, {units['target']}",
    )
    rows = [
        (c["name"], figure(c["target_gain"], sign=True), figure(c[cost], sign=not flops),
         "yes" if c[flag] else "no")
        for c in sorted(own, key=lambda c: c[cost])
    ]  # fmt: skip
    on_it = [visible(row[0]) for row in rows if row[3] == "yes"]
    description = f"{len(own)} cells; on the frontier: {', '.join(on_it)}."
    head = ("cell", "gain on target", xlabel, "on the frontier")
    return Drawing(f"sweep-{flag}", title, description, picture, head, rows)


def _losses(folder: Path, names: Sequence[str]) -> Drawing | None:
    """How the loss fell in the trainings of these cells."""
    curves, rows = {}, []
    for name in names[:_CHAPTERS]:
        path = folder / _CELLS / name / "training.json"
        if not path.is_file():
            continue
        made = json.loads(path.read_bytes())
        held_out = [(x["step"], x["loss"]) for x in made["held_out"] or ()]
        curves[visible(name)[:_NAME]] = made["losses"], held_out
        last = figure(held_out[-1][1]) if held_out else "–"
        ends = (figure(made["losses"][k]) for k in (0, -1))
        rows.append((name, str(len(made["losses"])), *ends, last))
    if not curves:
        return None
    head = ("cell", "steps", "first loss", "last loss", "last, held out")
    description = "; ".join(f"{visible(r[0])} from {r[2]} to {r[3]}" for r in rows)
    title = "How the loss fell"
    return Drawing("learning", title, f"{description}.", study_plots.learning(curves), head, rows)
