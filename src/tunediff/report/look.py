"""What does a person see of one text, token by token, in a terminal or in a log file?

In colour where there is colour; without it the tokens that changed most carry their figure. All
that a model or a file said is stripped of control characters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.text import Text

from tunediff.findings.microscope import Candidate, Microscope, Parting, Reading, Span, Token
from tunediff.report.terminal import clean, quoted
from tunediff.values import Of

By = Literal["logp", "kl"]
LEVELS = (0.1, 1.0, 3.0)  # nats from which a token is coloured, and more strongly
MARKED = 1.0  # nats from which a token is marked where there is no colour
_FIGURE = {"logp": "Δ ln p", "kl": "KL"}
_STYLES = {
    "gain": ("green", "bold green", "reverse green"),
    "loss": ("red", "bold red", "reverse red"),
    "kl": ("yellow", "bold yellow", "reverse yellow"),
}
_OF = {"reference": "the reference", "base": "base's reply", "tuned": "tuned's reply"}
_MOST = 6  # tokens in the table
_CONTINUED = 300  # characters of a reply after the parting
_NAME = 60


def draw_item(
    console: Console,
    scope: Microscope,
    suite: str,
    item: str,
    reading: Reading | None,
    by: By,
    why_none: str = "",
) -> str:
    """One item: a text of it as both models read it, and where their replies part.

    Args:
        console: whose width and colours are used.
        scope: the run's texts.
        suite: the item's.
        item: its id.
        reading: the text shown; None where none was scored.
        by: what the colours show.
        why_none: a sentence on why there is no reading.

    """
    with console.capture() as captured:
        whose = "" if reading is None else f", {_OF[reading.of]}"
        _title(console, f"=== {clean(f'{suite}:{item}', _NAME)}{whose} ===")
        if reading is None:
            console.print(Text(clean(why_none)))
        else:
            _reading(console, reading, by, scope.noise_floor.get("kl_base_tuned"))
            _most_changed(console, reading, by)
        parting = scope.parting(suite, item)
        if parting is not None:
            _parting(console, scope, parting)
    return _lines(captured.get())


def draw_spans(
    console: Console,
    spans: Sequence[Span],
    by: By,
    looked_at: int,
    command: str,
    why_none: str,
) -> str:
    """The worst spans of a run, and how to look at one.

    Args:
        console: whose width and colours are used.
        spans: worst first.
        by: what they were chosen by.
        looked_at: the number of items whose candidates are kept.
        command: how to look at the first of them.
        why_none: what is said where there is no span.

    """
    with console.capture() as captured:
        what = "differ most" if by == "kl" else "the tuned model lost most"
        _title(console, f"=== Where {'the models ' if by == 'kl' else ''}{what} ===")
        if not spans:
            console.print(Text(why_none))
        for span in spans:
            name = clean(f"{span.suite}:{span.item}", _NAME)
            count = _tokens(span.stop - span.start)
            sums = f"Δ ln p {-span.loss:+.4g}, KL {span.kl:.4g} over {count}"
            console.print(Text(f"{name}, {_OF[span.of]}: {sums}", style="bold"))
            around = Text("  ")
            around.append(clean(span.before), "dim")
            around.append(f"[{clean(span.text, _CONTINUED)}]", None if by == "kl" else "red")
            around.append(clean(span.after), "dim")
            console.print(around)
        console.print()
        kept = f"Candidates are kept of {looked_at} items. To look at one:"
        console.print(Text(kept if looked_at else "To look at an item:"))
        console.print(Text(f"  {clean(command)}"), soft_wrap=True)
    return _lines(captured.get())


def _reading(console: Console, reading: Reading, by: By, floor: float | None) -> None:
    base, tuned, kl = (x / reading.count for x in (reading.nll_base, reading.nll_tuned, reading.kl))
    console.print(
        f"{_tokens(reading.count)}; nats/token: NLL {base:.3g} base, {tuned:.3g} tuned; "
        f"KL {kl:.3g}" + ("" if floor is None else f" (floor {floor:.2g})")
    )
    plain = console.no_color or console.color_system is None
    levels = ", ".join(f"{level:g}" for level in LEVELS)
    if plain:
        legend = f"[token {_FIGURE[by]}]: {MARKED:g} nat or more"
    elif by == "kl":
        legend = f"yellow: KL from {levels} nats"
    else:
        legend = f"green: likelier under tuned, red: less likely, from {levels} nats"
    console.print(Text(legend, style="dim"))
    console.print()
    shown = Text()
    for tokens in reading.characters:
        text = clean("".join(token.text for token in tokens))
        value = _value(tokens, by)
        if value is None:
            shown.append(text, "dim")
        elif not plain:
            shown.append(text, _style(value, by))
        elif abs(value) >= MARKED:
            shown.append(f"[{text} {_figure(value, by)}]")
        else:
            shown.append(text)
        if "⏎" in text:
            shown.append("\n")
    console.print(shown)


def _value(tokens: Sequence[Token], by: By) -> float | None:
    """The figure of one or more tokens that are shown as one; None where none is scored."""
    found = [t.kl if by == "kl" else t.delta_logp for t in tokens if t.scored]
    return math.fsum(v for v in found if v is not None) if found else None


def _figure(value: float, by: By) -> str:
    return format(value, ".1f" if by == "kl" else "+.1f")


def _style(value: float, by: By) -> str:
    level = sum(abs(value) >= edge for edge in LEVELS)
    kind = "kl" if by == "kl" else "gain" if value > 0 else "loss"
    return _STYLES[kind][level - 1] if level else ""


def _most_changed(console: Console, reading: Reading, by: By) -> None:
    scored = [token for token in reading.tokens if token.scored]
    scored.sort(key=lambda token: -abs(_value([token], by) or 0.0))
    expected = "" if scored[0].base is None else ", and what either expected in their place"
    _title(console, f"Tokens that changed most in {_FIGURE[by]}{expected}", above=True)
    console.print("  Δ ln p    p base   p tuned      KL  token")
    for token in scored[:_MOST]:
        assert token.nll_base is not None
        assert token.nll_tuned is not None
        p, q = math.exp(-token.nll_base), math.exp(-token.nll_tuned)
        console.print(
            Text(f"{token.delta_logp:+8.3f} {p:9.3g} {q:9.3g} {token.kl:7.3f}  ").append(
                quoted({"id": token.id, "text": token.text})
            )
        )
        for side, expected in (("base", token.base), ("tuned", token.tuned)):
            if expected is not None:
                console.print(Text(f"  {side:5}  {_expected(expected)}", style="dim"))
    if scored[0].base is None:
        console.print(
            Text(
                "What either expected is kept of the items of highest KL, and of those named by "
                "compare --look.",
                style="dim",
            )
        )


def _expected(candidates: Sequence[Candidate]) -> str:
    found = []
    for c in candidates:
        share = f"{c.p:.2f}".removeprefix("0") if c.p >= 0.005 else "<.01"
        found.append(f"{quoted({'id': c.token, 'text': c.text})} {share}")
    return "  ".join(found)


def _parting(console: Console, scope: Microscope, parting: Parting) -> None:
    if not parting.part:
        _title(console, "Both models reply the same", above=True)
        console.print(Text(clean(parting.common, _CONTINUED) or "(nothing)"))
        return
    where = "" if parting.token is None else f" at token {parting.token + 1}"
    _title(console, f"The replies part{where}", above=True)
    console.print(Text(f"both   {clean(parting.common.strip(), _CONTINUED) or '–'}"))
    sides: tuple[tuple[Of, str], ...] = (("base", parting.base), ("tuned", parting.tuned))
    for side, text in sides:
        console.print(Text(f"{side:5}  {clean(text, _CONTINUED) or '(ends)'}"))
        reading = scope.reading(parting.suite, parting.item, side)
        if reading is None or parting.token is None:
            continue
        at = reading.start + parting.token
        if at < len(reading.tokens):
            token = reading.tokens[at]
            assert token.nll_base is not None
            assert token.nll_tuned is not None
            p, q = math.exp(-token.nll_base), math.exp(-token.nll_tuned)
            said = quoted({"id": token.id, "text": token.text})
            console.print(Text(f"       {said}: p {p:.3g} under base, {q:.3g} under tuned", "dim"))


def _tokens(count: int) -> str:
    return f"{count} token{'s' * (count != 1)}"


def _title(console: Console, text: str, above: bool = False) -> None:
    if above:
        console.print()
    console.print(Text(text, style="bold"))


def _lines(captured: str) -> str:
    return "".join(line.rstrip() + "\n" for line in captured.splitlines())
