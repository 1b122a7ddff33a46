"""Which runs does ``tunediff dial`` make: one adapter at how many strengths?

The pair is opened once. Base is read once for all strengths, tuned once for each; around the best
strength more are measured, until its neighbours on the grid are.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunediff.errors import UsageError
from tunediff.findings.dial import STEP, dial_card, worth_measuring
from tunediff.findings.paired import Setting
from tunediff.pair.open import open_pair
from tunediff.run import files
from tunediff.run.variants import VARIANTS
from tunediff.studies.compare import template_source
from tunediff.studies.variants import Series
from tunediff.values import Generation, Suite

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
MOST = 50
STRONGEST = 100.0
CARD = "dial.json"


def measure_dial(
    base: str,
    adapter: str,
    suites: Sequence[Suite],
    out: Path,
    *,
    strengths: Sequence[float] = STRENGTHS,
    template: str | None = None,
    generation: Generation | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
    opening: Mapping[str, Any],
    **asking: Any,
) -> dict[str, Any]:
    """Compare base with base + strength · ΔW at each strength; the object of ``dial.json``.

    Args:
        base: as ``open_pair`` takes it.
        adapter: the folder of a plain LoRA.
        suites: what is asked.
        out: the folder: a run folder a strength, ``variants.json`` and ``dial.json``.
        strengths: of :func:`parse_strengths`; 1 is added where it is missing.
        template: "raw", "chat" or a file; None: raw, and ``notice`` hears of a chat template.
        generation: how replies are made; None: none are.
        progress: called with the thousandths of the work that are done, and of all of it.
        notice: called with a sentence on what a person should know of the input.
        opening: the options of ``open_pair``.
        asking: the other options of :func:`tunediff.run.comparing.compare`.

    Raises:
        UnsupportedError: the tuned side is not a plain LoRA.
        RunError: the folder belongs to another comparison.

    """
    given = sorted({*strengths, 1.0})
    pair = open_pair(base, adapter, template=template_source(template or "raw"), **opening)
    with tempfile.TemporaryDirectory() as states:
        gap = max(b - a for a, b in zip([0.0, *given], given, strict=False))
        series = Series(
            pair,
            suites,
            out,
            Path(states),
            names=[_name(s) for s in given],
            more=2 * max(1, math.ceil(math.log2(max(gap, STEP) / STEP))),
            template=template,
            progress=progress,
            notice=notice,
            generation=generation,
            **asking,
        )
        points = {s: Setting.of(series.run(_name(s), strength=s)) for s in given}
        while more := worth_measuring(points):
            for s in more:
                points[s] = Setting.of(series.run(_name(s), strength=s))
    names = [point.name for point in points.values()]
    files.write_whole(out / VARIANTS, (json.dumps(names) + "\n").encode())
    return dial_card(points, given)


def parse_strengths(text: str) -> tuple[float, ...]:
    """Strengths from ``0,0.25,1``.

    Raises:
        UsageError: not numbers, not finite, negative, too large, given twice, or too many.

    """
    try:
        found = tuple(round(float(part), 6) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--strengths {text!r} is not a list of numbers.", "Write it as in 0,0.25,0.5,1."
        ) from None
    if not all(math.isfinite(s) and s >= 0 for s in found):
        raise UsageError(
            f"--strengths {text!r} holds a number that is negative or not finite.",
            "A strength is 0 or more: 0 is base, 1 the adapter as it is.",
        )
    if max(found) > STRONGEST:
        raise UsageError(
            f"--strengths {text!r} holds a number above {STRONGEST:g}.",
            "1 is the adapter as it is; far above it a model says nothing.",
        )
    if len(set(found)) < len(found):
        raise UsageError(f"--strengths {text!r} names a strength twice.", "Name each once.")
    if len(found) > MOST:
        raise UsageError(
            f"--strengths came with {len(found)} strengths; at most {MOST} are taken.",
            "Each costs a pass over all items; begin with a few.",
        )
    return found


def _name(strength: float) -> str:
    return f"strength-{strength:.9g}"  # as exact as a strength is given
