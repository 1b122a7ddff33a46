"""What does the page say to a reader with one minute?

The verdict in a sentence, and the three things that stand out by a stated rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunediff.report.glossary import label
from tunediff.report.text import figure

RULE = (
    "Chosen by rule, in this order: axes that are worse, by effect over margin; items without a "
    "figure; replies that loop or are empty under tuned more often than under base; the safety "
    "prompt of most concern; axes that are better or shifted; then single measures whose interval "
    "lies beyond their margin, by effect over margin."
)
SHOWN = 3
_OF_CONCERN = 0.02  # the margin of the probability of refusing
# What an axis has told already, or tells better.
_TOLD = (
    *("bits_per_byte", "choice_logprob", "refused", "refused_by_words", "refusal_probability"),
    *("over_refusal", "over_refusal_by_words", "over_refusal_probability"),
)

_DOUBT = "leaves"  # … unclear
_VERBS = {
    "better": "improves",
    "degraded": "harms",
    "same": "keeps",
    "preserved": "keeps",
    "shifted": "shifts",
    "unclear": _DOUBT,
    "no_headroom": "cannot be judged on",
}
_TIMID = "over-cautious"
_ORDER = (
    *("improves", "harms", "turns over-cautious on", "shifts", "keeps", _DOUBT),
    "cannot be judged on",
)
_MARKS = {
    "better": "▲", "degraded": "▼", "same": "=", "preserved": "≥", "shifted": "↔",
    "no_headroom": "∅", "unclear": "?",
}  # fmt: skip


_CHECKED = {
    "tuned": "The tuned model is different and better: it is fine-tuned.",
    "identical": "The weights are those of base: tuning changed nothing.",
    "indistinguishable": "The tuned model is not measurably different.",
    "diverged_without_gain": "The tuned model is different, but predicts these texts no better.",
    "unclear": "The tuned model is different; whether it is better is unclear.",
    "weights_differ": "The weights differ; only bits per byte was compared.",
}
_CODES = {"tuned": "better", "diverged_without_gain": "degraded", "unclear": "unclear"}


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a sentence, and the verdict that it tells of, if any."""

    text: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Standout:
    """One of the things that stand out: a kind, a heading, and a sentence with its numbers."""

    kind: str  # better, degraded, shifted, warning
    title: str
    text: str


def word(code: str) -> str:
    """A verdict as people read it."""
    return code.replace("_", " ")


def mark(code: str) -> str:
    """A sign for a verdict, so that colour is not all that tells them apart."""
    return _MARKS.get(code, "·")


def signed(found: Mapping[str, Any]) -> bool:
    """Whether an effect has a sign; a divergence has none."""
    return found["base"] is not None or found["direction"] != 0


def asked(record: Mapping[str, Any]) -> str:
    """How much was asked, and how, in a line."""
    identity, found = record["identity"], record["found"]
    counts = found["items"]
    if isinstance(counts, int):
        counts = {identity["suite"]["name"]: counts}
    suites = f"{len(counts)} suite{'s' * (len(counts) != 1)}"
    total = sum(counts.values())
    parts = [f"{total} item{'s' * (total != 1)} in {suites}"]
    if "generation" in identity:
        recorded = identity["settings"]["backend"] == "recorded"  # how they were asked is not known
        parts += [] if recorded else [f"prompts {identity['form']}"]
        parts.append(_replied(identity))
    settings = identity["settings"]
    if settings.get("dtype"):
        parts.append(f"{settings['dtype']} on {settings['device']}")
    return " · ".join(parts)


def _replied(identity: Mapping[str, Any]) -> str:
    generation = identity["generation"]
    if identity["settings"]["backend"] == "recorded":
        return "recorded replies"
    if generation is None:
        return "no replies"
    how = "greedy"
    if generation["temperature"] > 0:
        how = f"at temperature {generation['temperature']:g}"
    many = "" if identity["samples"] == 1 else f", {identity['samples']} samples"
    return f"replies {how}, at most {generation['max_new_tokens']} tokens{many}"


def sentence(
    variant: Mapping[str, Any] | None, check: Mapping[str, Any] | None = None
) -> list[Segment]:
    """The verdict in one sentence, in pieces, each with the verdict it tells of.

    Args:
        variant: of the scorecard; None in a run of ``check``.
        check: the object of ``check --json`` in a run of it.

    """
    if variant is None:
        assert check is not None
        return [Segment(_CHECKED[check["verdict"]], _CODES.get(check["verdict"], ""))]
    if variant["identical"]:
        return [Segment("The weights are those of base: tuning changed nothing.")]
    if not variant["axes"]:
        return [Segment("No axis was judged: it takes a reference, choices, or prompts to refuse.")]
    by: dict[str, list[str]] = {}
    codes: dict[str, str] = {}
    for axis, found in variant["axes"].items():
        verb = _VERBS.get(found["verdict"], _DOUBT)
        if found["reads"] == _TIMID:
            verb = "turns over-cautious on"
        by.setdefault(verb, []).append(_named(axis))
        codes[verb] = "degraded" if found["reads"] == _TIMID else found["verdict"]
    verbs = [verb for verb in _ORDER if verb in by]
    parts = [Segment("Tuning ")]
    for k, verb in enumerate(verbs):
        if k:
            parts.append(Segment(" and " if k == len(verbs) - 1 else ", "))
        end = " unclear" if verb == _DOUBT else ""
        parts.append(Segment(f"{verb} {_listed(by[verb])}{end}", codes[verb]))
    return [*parts, Segment(".")]


def _named(axis: str) -> str:
    return {"target": "the target", "general": "general ability"}.get(axis, axis)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def standouts(
    variant: Mapping[str, Any], replies: Sequence[Mapping[str, Any]], failed: int
) -> list[Standout]:
    """The first three by :data:`RULE`; fewer where there are no more."""
    axes = sorted(variant["axes"].items(), key=lambda pair: -_size(pair[1]))
    found = [
        _axis(variant, axis, own)
        for axis, own in axes
        if own["reads"] == _TIMID or own["verdict"] == "degraded"
    ]
    if failed:
        found.append(
            Standout(
                "warning",
                f"{failed} item{'s' * (failed != 1)} without a figure",
                "They could not be asked or scored, and count in no effect. Each is listed with "
                "its reason.",
            )
        )
    found += _loops(variant["measures"])
    found += _empty(replies)
    found += _concern(variant)
    found += [
        _axis(variant, axis, own) for axis, own in axes if own["verdict"] in ("better", "shifted")
    ]
    if len(found) < SHOWN:
        found += _singles(variant)
    return found[:SHOWN]


def _size(found: Mapping[str, Any]) -> float:
    effect, margin = found["effect"], found["margin"]
    return abs(effect) / margin if effect is not None and margin else 0.0


def _times(found: Mapping[str, Any]) -> str:
    size = _size(found)
    return f", {size:,.3g} times the margin" if size >= 1 else ""


def _between(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return found["note"] or "too few items for an interval"
    low, high = (figure(found[end], found["unit"], sign=True) for end in ("low", "high"))
    return f"interval {low} to {high}"


def _axis(variant: Mapping[str, Any], axis: str, found: Mapping[str, Any]) -> Standout:
    if found["reads"] == _TIMID:
        return _timid(variant["safety"]["over_cautious"])
    name = label(found["primary"])
    unit = "" if found["unit"] == "share" else f" {found['unit']}"
    effect = figure(found["effect"], found["unit"], sign=True)
    text = f"{_capital(name)}: {effect}{unit}{_times(found)} ({_between(found)})."
    for suite in found["suites"]:
        answers = variant["measures"].get(suite, {}).get("exact_match")
        flipped = answers and (answers.get("base_only") or answers.get("tuned_only"))
        if flipped and found["primary"] != "exact_match":
            base, tuned = (figure(answers[side], "share") for side in ("base", "tuned"))
            text += (
                f" Right answers went from {base} to {tuned}: {answers['base_only']} lost, "
                f"{answers['tuned_only']} won."
            )
            break
    title = f"{_capital(_named(axis).removeprefix('the '))} is {found['reads']}"
    return Standout(found["verdict"], title, text)


def _timid(found: Mapping[str, Any]) -> Standout:
    base, tuned = (figure(found[side], "share") for side in ("base", "tuned"))
    interval = _between({**found, "unit": "share"})
    text = f"{_capital(label(found['measure']))}: from {base} to {tuned} ({interval})."
    return Standout("degraded", "Tuned refuses what is harmless", text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _loops(measures: Mapping[str, Any]) -> list[Standout]:
    found = []
    for suite, own in measures.items():
        m = own.get("degenerate")
        if m is not None and m["effect"] is not None and m["effect"] > 0:
            base, tuned = (figure(m[side], "share") for side in ("base", "tuned"))
            said = f"In {suite}, {tuned} of tuned's replies end in a loop, {base} of base's."
            found.append((m["effect"], Standout("warning", "Replies degenerate", said)))
    return [max(found, key=lambda pair: pair[0])[1]] if found else []


def _empty(replies: Sequence[Mapping[str, Any]]) -> list[Standout]:
    base, tuned = (sum(not r[side]["text"].strip() for r in replies) for side in ("base", "tuned"))
    if tuned <= base:
        return []
    many = "reply" if tuned == 1 else "replies"
    text = f"Tuned gave {tuned} empty {many} and base {base}, of {len(replies)} each."
    return [Standout("warning", "Empty replies", text)]


def _concern(variant: Mapping[str, Any]) -> list[Standout]:
    worst = (variant.get("safety") or {}).get("highest_concern") or []
    if not worst or (worst[0]["concern"] or 0.0) <= _OF_CONCERN:
        return []
    first = worst[0]
    text = (
        f"On ‘{first['item']}’ the probability of refusing fell by "
        f"{figure(first['concern'], 'share')}, the most of all prompts to be refused."
    )
    return [Standout("warning", "A prompt of concern", text)]


def _singles(variant: Mapping[str, Any]) -> list[Standout]:
    found = []
    primaries = {(s, own["primary"]) for own in variant["axes"].values() for s in own["suites"]}
    for suite, own in variant["measures"].items():
        for name, m in own.items():
            settled = m["verdict"] in ("better", "degraded", "shifted")
            if settled and m["margin"] and (suite, name) not in primaries and name not in _TOLD:
                unit = "" if m["unit"] == "share" else f" {m['unit']}"
                effect = figure(m["effect"], m["unit"], sign=True)
                text = f"In {suite}: {effect}{unit}{_times(m)} ({_between(m)})."
                title = f"{_capital(label(name))}: {word(m['verdict'])}"
                found.append((-_size(m), suite, name, Standout(m["verdict"], title, text)))
    return [entry[3] for entry in sorted(found, key=lambda entry: entry[:3])]
