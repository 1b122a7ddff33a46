"""What does a person see of a comparison in ten seconds, in a terminal of 80 columns?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunediff.report.ratings import people
from tunediff.report.safety import draw_safety, worth_a_look
from tunediff.report.terminal import clean, columns, number

_STYLES = {
    "better": "green",
    "same": "green",
    "preserved": "green",
    "degraded": "bold red",
    "no_headroom": "yellow",
    "unclear": "yellow",
    "shifted": "cyan",
}
# Shown of each suite, where they apply, beside the axes.
_BESIDE = (
    ("exact_match", "exact match"),
    ("choice_accuracy", "right choices"),
    ("instruction_adherence", "constraints met"),
    ("nll", "NLL, nats/token"),
    ("words", "words a reply"),
    ("keyword_coverage", "keywords covered"),
    ("repetition", "repeated share"),
    ("degenerate", "degenerate replies"),
)
_PRIMARY = {
    "nll": "NLL of the references",
    "exact_match": "exact match",
    "refusal_probability": "refusal probability",
    "refused_by_words": "refused, by words",
}
_WORST = 3
_REPLY = 150  # characters of a reply that are shown


def draw(console: Console, card: Mapping[str, Any], replies: Sequence[Mapping[str, Any]]) -> str:
    """The scorecard as lines of text.

    Args:
        console: whose width and colours are used.
        card: of :func:`tunediff.findings.scorecard.scorecard`.
        replies: the first variant's, as ``Run.replies`` gives them.

    """
    with console.capture() as captured:
        console.print(Text("=== What changed ===", style="bold"))
        console.print(Text(f"base   {clean(card['base']['path'])}"))
        variants = card["variants"]
        if len(variants) == 1:
            _one(console, variants[0], replies)
        else:
            _several(console, card)
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())


def _one(
    console: Console, variant: Mapping[str, Any], replies: Sequence[Mapping[str, Any]]
) -> None:
    console.print(Text(f"tuned  {clean(variant['tuned']['path'])} ({variant['tuned']['kind']})"))
    console.print(Text(_asked(variant["settings"])))
    console.print()
    if variant["axes"]:
        console.print(_headline(variant["axes"]))
        console.print()
        console.print(_axes(variant["axes"]))
        console.print(Text(_explained(variant["axes"]), style="dim"))
        for axis, found in variant["axes"].items():
            if found["verdict"] == "unclear":
                console.print(Text(f"{axis}: {clean(found['reason'])}", style="yellow"))
            if found["failed"]:
                failed = f"{found['failed']} item{'s' * (found['failed'] != 1)}"
                console.print(Text(f"{axis}: {failed} could not be asked or scored."))
    else:
        console.print("No axis was judged: it takes a reference, choices, or prompts to refuse.")
    for suite, found in variant["unmeasured"].items():
        line = f"{clean(suite, 20)}: nothing is known of {found['items']} of its items"
        first = f"'{clean(found['first'], 30)}': {clean(found['reason'])}"
        console.print(Text(f"{line}; the first is {first}", style="yellow"))
    for axis, found in variant["axes"].items():
        _by_suite(console, axis, found, variant["measures"])
    if variant["safety"] is not None:
        draw_safety(console, variant["safety"])
    if variant["measures"]:
        _beside(console, variant["measures"])
    if variant["ratings"] is not None:
        console.print(Text("\nWhat people say, blind", style="bold"))
        people(console, variant["ratings"])
    _ended(console, replies)
    cut = variant["settings"]["truncated"]
    if cut["items"]:
        items = f"{cut['items']} item{'s' * (cut['items'] != 1)}"
        line = f"Truncated: {items} to be scored, {cut['tokens']} tokens left out."
        console.print(Text(line, style="yellow"))
    shown = variant["safety"] is not None and worth_a_look(variant["safety"])
    rest = [loss for loss in variant["worst"] if loss["axis"] != "safety" or not shown]
    _worst(console, rest, replies)
    _speed(console, variant["speed"])


def _several(console: Console, card: Mapping[str, Any]) -> None:
    variants = card["variants"]
    forms = dict.fromkeys(variant["settings"]["form"] for variant in variants)
    console.print(Text(_asked({**variants[0]["settings"], "form": " and ".join(forms)})))
    console.print()
    axes = [axis for axis in variants[0]["axes"] if all(axis in v["axes"] for v in variants)]
    drawn = columns("tuned model", *(f"{axis}" for axis in axes), left=range(1 + len(axes)))
    for variant in variants:
        cells = []
        for axis in axes:
            found = variant["axes"][axis]
            cells.append(Text(f"{number(found['effect'], '+.3g')} ").append_text(_verdict(found)))
        drawn.add_row(Text(clean(variant["name"], 24)), *cells)
        intervals = [Text(_interval(variant["axes"][axis]), style="dim") for axis in axes]
        drawn.add_row("", *intervals)
    console.print(drawn)
    if axes:
        shown = {axis: variants[0]["axes"][axis] for axis in axes}
        level = f"{100 * shown[axes[0]]['level']:.4g} % intervals"
        line = f"Effects are tuned − base, with their {level}. {_explained(shown)}"
        console.print(Text(line, style="dim"))
    _template(console, card["template"])
    best = card["best"]
    if best is not None:
        console.print()
        if best["name"] is None:
            console.print(Text(f"Best: none, {best['reason']}."))
        else:
            effect = f"{number(best['effect'], '+.3g')} ({_interval(best)})"
            where = f"on the half of {best['axis']} that did not choose it"
            console.print(Text(f"Best: {clean(best['name'])}, {effect} {where}."))
        console.print(Text(f"Rule: {best['rule']}.", style="dim"))


def _template(console: Console, shares: Mapping[str, Mapping[str, Any]]) -> None:
    """What the template did to base, beside what tuning did in either form."""
    if not any(shares.values()):
        return
    drawn = columns("tuned model", "axis", "template", "tuning, raw", "tuning, chat", left=(0, 1))
    for name, axes in shares.items():
        for axis, found in axes.items():
            figures = (found[key] for key in ("template", "tuning_raw", "tuning_chat"))
            drawn.add_row(Text(clean(name, 24)), axis, *(number(f, "+.3g") for f in figures))
    console.print()
    console.print(drawn)
    console.print(Text("Template: base by chat − base raw. Tuning: tuned − base.", style="dim"))


def _asked(settings: Mapping[str, Any]) -> str:
    if settings["backend"] == "recorded":
        return f"asked  recorded replies, up to {settings['samples']} to a prompt"
    generation = settings["generation"]
    said = "no replies"
    if generation is not None:
        how = "greedy"
        if generation["temperature"] > 0:
            how = f"temperature {generation['temperature']:g}, top-p {generation['top_p']:g}"
        said = f"replies {how}, at most {generation['max_new_tokens']} tokens"
        if settings["samples"] > 1:
            said += f", {settings['samples']} samples"
    return f"asked  prompts {settings['form']}; {said}"


def _headline(axes: Mapping[str, Any]) -> Text:
    line = Text()
    for axis, found in axes.items():
        line.append(f"{' · ' if line else ''}{axis} ")
        line.append_text(_verdict(found))
    return line


def _verdict(found: Mapping[str, Any]) -> Text:
    code: str = found["verdict"]
    word: str = found["reads"]
    return Text(word, style=_STYLES["degraded" if word == "over-cautious" else code])


def _axes(axes: Mapping[str, Any]) -> Table:
    level = 100 * next(iter(axes.values()))["level"]
    interval = f"{level:.4g} % interval"
    drawn = columns("axis", "verdict", "base", "tuned", "effect", interval, "n", left=(0, 1))
    for axis, found in axes.items():
        drawn.add_row(
            axis,
            _verdict(found),
            number(found["base"], ".4g"),
            number(found["tuned"], ".4g"),
            number(found["effect"], "+.3g"),
            _interval(found),
            str(found["groups"]),
        )
    return drawn


def _explained(axes: Mapping[str, Any]) -> str:
    """Which measure each axis was judged by, and against which margin."""
    by: dict[tuple[str, str, float], list[str]] = {}
    for axis, found in axes.items():
        by.setdefault((found["primary"], found["unit"], found["margin"]), []).append(axis)
    directions = {found["primary"]: found["direction"] for found in axes.values()}
    better = {name: "lower" if d < 0 else "higher" for name, d in directions.items()}
    mixed = len(set(better.values())) > 1
    parts = [
        f"{_PRIMARY.get(name, name)} ({', '.join(own)}), margin {margin:g} {unit}"
        + (f", {better[name]} is better" if mixed else "")
        for (name, unit, margin), own in by.items()
    ]
    lower = ", lower is better" if set(better.values()) == {"lower"} else ""
    return f"Judged by {'; '.join(parts)}{lower}."


def _interval(found: Mapping[str, Any]) -> str:
    if found["low"] is None or found["high"] is None:
        return "too few" if found["groups"] < 6 else "–"
    return f"{found['low']:+.3g} … {found['high']:+.3g}"


def _beside(console: Console, measures: Mapping[str, Any]) -> None:
    drawn = columns("suite", "measure", "base", "tuned", "change", "", left=(0, 1, 5))
    for suite, own in measures.items():
        title = clean(suite, 14)
        for name, label in _BESIDE:
            found = own.get(name)
            if found is None or (name == "nll" and "exact_match" in own):
                continue
            flips = ""
            if name != "degenerate" and (found.get("base_only") or found.get("tuned_only")):
                flips = f" (lost {found['base_only']}, won {found['tuned_only']})"
            share = found["unit"] == "share"
            base, tuned = (number(found[s], ".1%" if share else ".4g") for s in ("base", "tuned"))
            note = Text(found["verdict"].replace("_", " "), _STYLES.get(found["verdict"], ""))
            change = number(found["effect"], "+.1%" if share else "+.3g")
            drawn.add_row(title, label, base, tuned, change, note.append(flips, style="dim"))
            title = ""
    if drawn.row_count:
        console.print()
        console.print(drawn)


def _by_suite(
    console: Console, axis: str, found: Mapping[str, Any], measures: Mapping[str, Any]
) -> None:
    """The suites of an axis apart, since what pools them may hide that they disagree."""
    own = [(s, measures.get(s, {}).get(found["primary"])) for s in found["suites"]]
    shown = [f"{clean(s, 20)} {number(m['effect'], '+.3g')}" for s, m in own if m is not None]
    if len(shown) > 1:
        console.print(Text(f"{axis} by suite: {', '.join(shown)}", style="dim"))


def _ended(console: Console, replies: Sequence[Mapping[str, Any]]) -> None:
    """What no measure of a reply's text says: that it is empty, or was cut off."""
    lines = []
    for what, is_so in (
        ("Empty replies", lambda reply: not reply["text"].strip()),
        ("Replies cut at the token limit", lambda reply: reply.get("stop") == "length"),
    ):
        base, tuned = (sum(is_so(line[side]) for line in replies) for side in ("base", "tuned"))
        if base or tuned:
            lines.append(f"{what}: base {base}, tuned {tuned}, of {len(replies)} each.")
    if lines:
        console.print()
        console.print(Text("\n".join(lines), style="yellow"))


def _speed(console: Console, speed: Mapping[str, float | None]) -> None:
    said = [
        f"{name} {speed[side]:,.0f}"
        for side, name in (("base", "base"), ("tuned", "tuned"), ("replies", "replies of both"))
        if speed[side] is not None
    ]
    if said:
        merged = "" if speed["merged"] is None else "; merged it reads as fast as base"
        console.print()
        console.print(Text(f"Tokens a second: {', '.join(said)}{merged}.", style="dim"))


def _worst(
    console: Console,
    worst: Sequence[Mapping[str, Any]],
    replies: Sequence[Mapping[str, Any]],
) -> None:
    if not worst:
        return
    console.print()
    console.print(Text("Where base beats tuned, worst first", style="bold"))
    said = {(r["suite"], r["item"], r["sample"]): r for r in replies}
    for loss in worst[:_WORST]:
        where = f"{clean(loss['suite'], 20)} '{clean(loss['item'], 30)}'"
        console.print(Text(f"{where}: {loss['measure']} worse by {loss['loss']:.3g}"))
        both = said.get((loss["suite"], loss["item"], loss["sample"]))
        if both is not None:
            for side in ("base", "tuned"):
                console.print(Text(f"  {side:5}  {clean(both[side]['text'], _REPLY)}"))
