"""What does the page say of one tuned model: its figures, drawings and lists?

From one finished run; a part is there where the run has what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunediff.findings.microscope import By, Microscope, Span
from tunediff.findings.primary import by_id
from tunediff.findings.summary import summarize
from tunediff.report import figures
from tunediff.report.figures import Drawing
from tunediff.report.refusing import Twin, concern_by_category, twins
from tunediff.report.story import Segment, Standout, sentence, standouts
from tunediff.report.tables import prompt_of
from tunediff.run.store import Run
from tunediff.values import Row

_SPANS = 10
_BY: tuple[tuple[str, By], ...] = (
    ("The distributions differ most", "kl"),
    ("Tuned finds the text less likely", "loss"),
)
_FAILED = 200  # items without a figure that are listed


@dataclass(frozen=True)
class Chapter:
    """What there is to say of one tuned model."""

    name: str
    base: str  # its path
    tuned: str
    kind: str
    sentence: list[Segment]
    axes: Mapping[str, Any]  # of the scorecard, empty in a run of `check`
    strips: Mapping[str, tuple[Drawing, bool]]
    standouts: list[Standout]
    failures: list[Mapping[str, str]]
    failed: int
    measures: Mapping[str, Mapping[str, Any]]
    drawings: Mapping[str, list[Drawing]]
    domains: Drawing | None
    correlations: Drawing | None
    tokens: Drawing | None
    spans: Mapping[str, list[Span]]  # the worst, by what they are the worst in
    layers: Drawing | None
    worst: list[Mapping[str, Any]]
    categories: Sequence[Mapping[str, Any]]
    safety: Mapping[str, Any] | None
    concern: Drawing | None
    twins: list[Twin]
    ratings: Mapping[str, Any] | None
    notes: list[Mapping[str, Any]]  # of raters
    check: Mapping[str, Any] | None  # of a run of `check`
    record: Mapping[str, Any]


def is_check(run: Run) -> bool:
    """Whether ``check`` made the run, and not ``compare``."""
    return "suites" not in run.record["identity"]


def chapter(run: Run, variant: Mapping[str, Any] | None, scope: Microscope) -> Chapter:
    """Of a run of ``compare`` with its variant of the scorecard, or of ``check`` with None."""
    identity, found = run.record["identity"], run.record["found"]
    rows = run.rows()
    table: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        table.setdefault((row.suite, row.measure), []).append(row)
    check = summarize(run) if variant is None else None
    failures = _failures(table)
    replies, items = run.replies(), by_id(run.items())
    axes = {} if variant is None else variant["axes"]
    weights = found.get("weights")
    return Chapter(
        name=identity["variant"],
        base=found["paths"]["base"],
        tuned=found["paths"]["tuned"],
        kind=identity["tuned"]["kind"],
        sentence=sentence(variant, check),
        axes=axes,
        strips=figures.axis_strips(axes),
        standouts=[] if variant is None else standouts(variant, replies, len(failures)),
        failures=failures[:_FAILED],
        failed=len(failures),
        measures={} if variant is None else variant["measures"],
        drawings=figures.measure_pairs(table, identity["measures"]),
        domains=figures.domain_effects(rows, identity["measures"]),
        correlations=figures.correlation_heat([] if variant is None else variant["correlations"]),
        tokens=figures.token_shares(run),
        spans={title: scope.worst_spans(_SPANS, by) for title, by in _BY},
        layers=None if weights is None else figures.weight_layers(weights),
        worst=[] if variant is None else _worst(variant["worst"], run, replies),
        categories=[] if variant is None else variant["categories"],
        safety=None if variant is None else variant["safety"],
        concern=concern_by_category(table, items),
        twins=twins(table, items),
        ratings=None if variant is None else variant["ratings"],
        notes=[line for line in (run.ratings() or {"ratings": []})["ratings"] if line.get("note")],
        check=check,
        record=run.record,
    )


def _failures(table: Mapping[tuple[str, str], Sequence[Row]]) -> list[Mapping[str, str]]:
    """Items of which no measure has a figure, and why the first has none."""
    reasons: dict[tuple[str, str], str] = {}
    measured: set[tuple[str, str]] = set()
    for row in (row for own in table.values() for row in own):
        if row.effect_sum is None:
            reasons.setdefault((row.suite, row.item), row.reason or "")
        else:
            measured.add((row.suite, row.item))
    return [
        {"suite": suite, "item": item, "reason": reason}
        for (suite, item), reason in sorted(reasons.items())
        if (suite, item) not in measured
    ]


def _worst(
    worst: Sequence[Mapping[str, Any]], run: Run, replies: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Each item where base beats tuned, with what was asked and said."""
    prompts = {(item["suite"], item["id"]): prompt_of(item) for item in run.items()}
    said = {(r["suite"], r["item"], r["sample"]): r for r in replies}
    return [
        {
            **loss,
            "prompt": prompts.get((loss["suite"], loss["item"]), ""),
            "said": said.get((loss["suite"], loss["item"], loss["sample"])),
        }
        for loss in worst
    ]
