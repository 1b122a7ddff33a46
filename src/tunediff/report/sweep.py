"""What does a person see of a sweep, in a terminal of 80 columns?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tunediff.report.terminal import clean, columns, number

_NAME = 24  # columns of a cell's name


def draw_sweep(console: Console, result: Mapping[str, Any]) -> str:
    """The object of :func:`tunediff.findings.sweep.summarize_sweep` as lines of text."""
    with console.capture() as captured:
        console.print(Text("=== Sweep ===", style="bold"))
        console.print(Text(f"base   {clean(result['base']['path'])}"))
        _effects(console, result)
        _costs(console, result["cells"])
        if any(setting["seeds"] > 1 for setting in result["settings"]):
            _seeds(console, result["settings"])
        _recommended(console, result["recommendation"])
        for sentence in result["advice"]:
            console.print(Text(clean(sentence), style="yellow"))
    return _lines(captured.get())


def draw_plan(
    console: Console, cells: Sequence[Mapping[str, Any]], asked: Mapping[str, int]
) -> str:
    """What ``--dry-run`` says: the cells with their estimates, and how many items are asked."""
    with console.capture() as captured:
        table = columns("cell", "rows", "tokens", "adapter", "FLOPs", left=(0,))
        for cell in cells:
            table.add_row(
                clean(cell["name"], _NAME),
                f"{cell['rows']:,}",
                f"{cell['training_tokens']:,}",
                f"{cell['adapter_parameters']:,}",
                _scaled(cell["training_flops"]),
            )
        console.print(table)
        whole = sum(cell["training_flops"] for cell in cells)
        items = ", ".join(f"{name} {count:,}" for name, count in asked.items())
        console.print(Text(f"{len(cells)} trainings, {_scaled(whole)} FLOPs in all."))
        console.print(Text(f"Each is asked: {clean(items)} items. Nothing was trained."))
    return _lines(captured.get())


def _effects(console: Console, result: Mapping[str, Any]) -> None:
    axes = [axis for axis in ("target", "general", "safety") if axis in result["measures"]]
    _title(console, "Gain on target, loss elsewhere")
    table = columns("cell", *(_key(axis).replace("_", " ") for axis in axes), "", left=(0,))
    for cell in result["cells"]:
        name = clean(cell["name"], _NAME)
        if cell["failed"]:
            table.add_row(name, Text("failed", style="bold red"))
            continue
        marks = ("*" * bool(cell["frontier_loss"])) + ("+" * bool(cell["frontier_flops"]))
        table.add_row(name, *(_interval(cell, _key(axis)) for axis in axes), marks)
    console.print(table)
    level = result["interval_level"]
    said = "; ".join(
        f"{axis}: {result['measures'][axis]['primary'].replace('_', ' ')}, "
        f"{result['measures'][axis]['unit']}"
        for axis in axes
    )
    console.print(
        Text(
            f"{clean(said)}. Intervals over items"
            + ("" if level is None else f", at {100 * level:.4g} %")
            + ".\n* no other cell has more gain for no more general loss; + for no more FLOPs.",
            style="dim",
        )
    )
    for cell in result["cells"]:
        if cell["failed"]:
            console.print(Text(f"{cell['name']}: {clean(cell['failed'])}", style="yellow"))


def _costs(console: Console, cells: Sequence[Mapping[str, Any]]) -> None:
    _title(console, "What it cost, and how much of the rank it uses")
    table = columns(
        "cell", "parameters", "MB", "FLOPs", "time", "last loss", "rank used", left=(0,)
    )
    for cell in cells:
        if cell["failed"]:
            continue
        used = cell["energy_rank"]
        table.add_row(
            clean(cell["name"], _NAME),
            f"{cell['adapter_parameters']:,}",
            f"{cell['adapter_bytes'] / 1e6:.3g}",
            _scaled(cell["training_flops"]),
            f"{cell['training_seconds']:.1f} s",
            number(cell["last_loss"], ".3f"),
            "–" if used is None else f"{used:.1f} of {cell['rank']}",
        )
    console.print(table)
    console.print(
        Text("Rank used: directions for 99 % of the change, mean over modules.", style="dim")
    )


def _seeds(console: Console, settings: Sequence[Mapping[str, Any]]) -> None:
    _title(console, "Over seeds: mean ± standard deviation")
    table = columns("setting", "seeds", "target gain", "general loss", left=(0,))
    for setting in settings:
        figures = (
            f"{number(setting[key], '+.3f')} ± {number(setting[f'{key}_sd'], '.3f')}"
            for key in ("target_gain", "general_loss")
        )
        table.add_row(clean(setting["name"], _NAME), str(setting["seeds"]), *figures)
    console.print(table)


def _recommended(console: Console, said: Mapping[str, Any]) -> None:
    _title(console, f"Recommended: {clean(said['name']) or 'none'}")
    if said["name"] is None:
        console.print(Text(f"Why: {clean(said['reason'])}."))
    else:
        console.print(Text("On the items that did not choose it:"))
        table = columns(None, None, None, None, left=(0, 2, 3))
        for axis, change in said["axes"].items():
            lost = axis != "target" and change["effect"] > change["margin"]
            table.add_row(
                f"  {_key(axis).replace('_', ' ')}",
                f"{change['effect']:+.3f}",
                "no interval"
                if change["low"] is None
                else f"{change['low']:+.3f}…{change['high']:+.3f}",
                f"{change['unit']}, {change['groups']} group{'s' * (change['groups'] != 1)}"
                + (f", beyond the margin of {change['margin']:g}" if lost else ""),
            )
        console.print(table)
    console.print(Text(f"Rule: {said['rule']}.", style="dim"))


def _key(axis: str) -> str:
    return f"{axis}_{'gain' if axis == 'target' else 'loss'}"


def _interval(cell: Mapping[str, Any], key: str) -> str:
    """The figure and its interval; of safety, for which no room is left, the figure alone."""
    figure, low, high = (number(cell[k], "+.3f") for k in (key, f"{key}_low", f"{key}_high"))
    short = key.startswith("safety") or cell[f"{key}_low"] is None
    return figure if short else f"{figure} {low}…{high}"


def _scaled(flops: float) -> str:
    return f"{flops:.2e}"


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def _lines(text: str) -> str:
    return "".join(line.rstrip() + "\n" for line in text.splitlines())
