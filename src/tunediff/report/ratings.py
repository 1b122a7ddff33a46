"""What does a person see of the ratings, in a terminal of 80 columns?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tunediff.report.terminal import clean, columns, number

_CALIBRATED = 5
_NAME = 20


def draw_ratings(console: Console, exported: Mapping[str, Any]) -> str:
    """The object of ``ratings.json`` as lines of text."""
    summary = exported["summary"]
    with console.capture() as captured:
        console.print(Text("=== What people say ===", style="bold"))
        console.print(Text(f"tuned  {clean(exported['variant'])}"))
        counts = f"{summary['ratings']} ratings of {summary['items']} items"
        console.print(Text(f"rated  {counts} by {len(summary['raters'])}, blind\n"))
        people(console, summary)
        console.print()
        _raters(console, summary["raters"])
        _agreement(console, summary)
        _calibration(console, summary)
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())


def people(console: Console, summary: Mapping[str, Any]) -> None:
    """What a summary of ratings comes to: who wins, and how well both follow instructions."""
    win, measures = summary["win_rate"], summary["measures"]
    line = Text(f"Tuned wins {number(win['value'], '.1%')}", style="bold")
    line.append(f" {_between(win, '.1%')}: ", style="not bold")
    line.append(measures["human_preference"]["verdict"], style="not bold")
    counts = f"won {win['won']}, tied {win['tied']}, lost {win['lost']}"
    console.print(line.append(f"; {counts} (a tie is half a win).", style="not bold"))
    scores = measures["human_adherence"]
    both = f"base {scores['base']:.2f}, tuned {scores['tuned']:.2f}, {scores['effect']:+.2f}"
    said = f"{_between(scores, '+.2f')}: {scores['verdict']}"
    console.print(Text(f"Instruction adherence, 1 to 5: {both} {said}."))


def _raters(console: Console, raters: Sequence[Mapping[str, Any]]) -> None:
    drawn = columns("rater", "items", "tuned wins", "base", "tuned", "same when shown twice",
                    left=(0, 5))  # fmt: skip
    for own in raters:
        twice = own["consistency"]
        same = "–"
        if twice["items"]:
            apart = twice["mean_score_difference"]
            same = f"{twice['same_preference']} of {twice['items']}, scores {apart:.2g} apart"
        figures = (number(own["win_rate"], ".1%"), *(f"{own[s]:.2f}" for s in ("base", "tuned")))
        drawn.add_row(Text(clean(own["rater"], _NAME)), str(own["items"]), *figures, same)
    console.print(drawn)


def _agreement(console: Console, summary: Mapping[str, Any]) -> None:
    agreement, side = summary["agreement"], summary["side"]
    console.print()
    drawn = columns("agreement", "alpha", "95 % interval", "", left=(0, 3))
    for name, title in (("preference", "preference (nominal)"), ("adherence", "scores (ordinal)")):
        found = agreement[name]
        ends = "–" if found["low"] is None else f"{found['low']:.2f} … {found['high']:.2f}"
        drawn.add_row(title, number(found["alpha"], ".2f"), ends, found["note"] or "")
    console.print(drawn)
    for pair in agreement["kappa"]:
        names = " and ".join(clean(name, _NAME) for name in pair["raters"])
        kappas = f"preference {number(pair['preference'], '.2f')}, scores "
        kappas += number(pair["adherence"], ".2f")
        console.print(Text(f"Cohen's kappa, {names}: {kappas} ({pair['items']} items)."))
    if side["of"]:
        share = f"{number(side['share'], '.0%')} {_between(side, '.0%')}"
        console.print(Text(f"Reply A won {side['a']} of {side['of']} decided, {share}.", "dim"))


def _calibration(console: Console, summary: Mapping[str, Any]) -> None:
    found = [line for line in summary["calibration"] if line["against"] == "human_preference"]
    if not found:
        return
    console.print()
    drawn = columns("measure", "rank corr.", "95 % interval", "tuned wins, all", "95 % interval",
                    left=(0,))  # fmt: skip
    for line in found[:_CALIBRATED]:
        # from tuned − base to the share that tuned wins
        wins = [line[f"corrected{end}"] for end in ("", "_low", "_high")]
        value, low, high = (None if w is None else min(max((1 + w) / 2, 0), 1) for w in wins)
        drawn.add_row(
            line["measure"],
            f"{line['rho']:+.2f}",
            "–" if line["low"] is None else f"{line['low']:+.2f} … {line['high']:+.2f}",
            number(value, ".1%"),
            "–" if low is None else f"{number(low, '.1%')} … {number(high, '.1%')}",
        )
    console.print(drawn)
    console.print(
        Text(
            f"The {min(len(found), _CALIBRATED)} of {len(found)} measures that are closest to what "
            "people prefer (exploratory). All: over rated and unrated items, by prediction-powered "
            "inference from the ratings and this measure.",
            style="dim",
        )
    )


def _between(found: Mapping[str, Any], style: str) -> str:
    if found["low"] is None:
        return f"(no interval: {found['note']})"
    return f"(95 % interval {number(found['low'], style)} to {number(found['high'], style)})"
