"""Did a measure, or an axis, get better, get worse, or stay as it was?

Every claim is one of an interval against a margin that was stated before, but for *better*, which
is one of a p that is corrected for how many were asked; a claim without a stated margin takes such
a p as well. Nothing at or below its noise floor has moved. "Not significant" is never "same": what
is neither is ``unclear``, and the reason says how many more groups it would take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

from tunediff.errors import InputError, UsageError
from tunediff.findings.corrections import holm
from tunediff.findings.estimates import estimate_ratio
from tunediff.findings.intervals import FEWEST_EQUAL_GROUPS, FEWEST_GROUPS, NO_SPREAD, TOO_FEW
from tunediff.findings.planning import POWER, more_groups
from tunediff.findings.proportions import Outcomes, more_outcomes
from tunediff.values import Estimate, Verdict

CODES = ("degraded", "same", "better", "preserved", "shifted", "no_headroom", "unclear")
PRESERVED = ("same", "better", "preserved")
"""The codes that count as preserved."""

ALPHA = 0.05

Direction = Literal[-1, 0, 1]


@dataclass(frozen=True, slots=True)
class Relative:
    """A relative margin m: where tuned stands against either end of base ± m·base.

    ``lower`` estimates tuned − (1 − m)·base and ``upper`` tuned − (1 + m)·base, base and tuned
    resampled together. Tuned lies inside the margin where the first is positive and the second
    negative.
    """

    margin: float
    lower: Estimate
    upper: Estimate


@dataclass(frozen=True, slots=True)
class Question:
    """An axis' primary measure: how it is estimated at a level, and what was stated before the run.

    ``estimate``: the effect's estimate with its interval at the level given; None where no item
    has a figure, and then ``missing`` is the sentence that says why. The other fields are those of
    :func:`judge`.
    """

    estimate: Callable[[float], Estimate] | None
    direction: Literal[-1, 1]
    margin: float
    unit: str = ""
    identical: bool = False
    headroom: bool = True
    floor: float | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """What K axes say together.

    ``level``: of the intervals, 1 − .05/K. ``verdicts``: by axis, each with its estimate, if there
    is one, under "effect". ``p``: by axis, after Holm; None where the measure has none.
    ``all_preserved``: whether every axis counts as preserved by its interval at 95 %.
    """

    level: float
    verdicts: Mapping[str, Verdict]
    p: Mapping[str, float | None]
    all_preserved: bool


def judge_axes(questions: Mapping[str, Question]) -> Answers:
    """Judge K axes so that the chance of even one false *better* or *degraded* stays at 5 %.

    Intervals at 1 − .05/K, and Holm over the K p. "All preserved" is an intersection of tests,
    each at its own 2.5 %: it needs no correction, and is read from the intervals at 95 %. An axis
    without a figure is one of the K all the same, ``unclear`` (its p counts as 1), and keeps "all
    preserved" from being said.

    Raises:
        InputError: no axis.
        UsageError: a margin that is negative or not finite.

    """
    if not questions:
        raise InputError("No axis came to be judged; at least one is needed.")
    level = 1 - ALPHA / len(questions)
    estimates = {axis: q.estimate and q.estimate(level) for axis, q in questions.items()}
    ps = {axis: 1.0 if e is None else e.p for axis, e in estimates.items()}
    raw = {axis: p for axis, p in ps.items() if p is not None}
    adjusted = dict.fromkeys(questions) | dict(zip(raw, holm(list(raw.values())), strict=True))
    known = {axis: None if e is None else adjusted[axis] for axis, e in estimates.items()}

    def verdict(axis: str, estimate: Estimate | None, at: float) -> Verdict:
        q = questions[axis]
        if estimate is None:
            why = "Equal by construction, as every weight is." if q.identical else q.missing
            return Verdict("same" if q.identical else "unclear", why)
        return judge(
            estimate,
            direction=q.direction,
            margin=q.margin,
            adjusted_p=known[axis],
            level=at,
            floor=q.floor,
            unit=q.unit,
            identical=q.identical,
            headroom=q.headroom,
        )

    single = 1 - ALPHA
    return Answers(
        level,
        {axis: verdict(axis, e, level) for axis, e in estimates.items()},
        known,
        all(
            verdict(axis, q.estimate and q.estimate(single), single).code in PRESERVED
            for axis, q in questions.items()
        ),
    )


def judge(
    estimate: Estimate,
    *,
    direction: Direction,
    margin: float | Relative | None,
    adjusted_p: float | None,
    level: float = 0.95,
    floor: float | None = None,
    divergence: bool = False,
    unit: str = "",
    identical: bool = False,
    headroom: bool = True,
) -> Verdict:
    """The verdict of one measure: the first that holds, effects turned so that positive is better.

    - ``degraded``: the interval's upper end < −m; where no margin was stated, adjusted p < .05 too.
    - ``same``: the interval lies inside ±m; where m is 0, it is 0 itself.
    - ``better``: adjusted p < .05, and the effect positive.
    - ``preserved``: the lower end > −m.
    - ``shifted``: without a direction, the interval beyond ±m and adjusted p < .05; a divergence
      above its floor.
    - ``unclear``: nothing of it, or no interval.

    Equal by construction is ``same`` before all. Without a direction there is no ``degraded``,
    ``better`` or ``preserved``. An effect no larger than its noise floor is neither ``degraded``,
    ``better`` nor ``shifted``, and ``preserved`` only by a margin that was stated. Where base is
    not above chance, ``no_headroom`` stands in place of ``same``, ``preserved`` and ``unclear``:
    what was never there cannot be seen to stay. A divergence needs no interval to lie above its
    floor.

    Args:
        estimate: of tuned − base, or of a divergence (never negative); its interval at ``level``.
        direction: +1 where higher is better, −1 where lower is, 0 where there is none.
        margin: m ≥ 0, absolute and in ``unit``; or relative; None, where none was stated, is 0.
        adjusted_p: after Holm over axes, or Benjamini and Hochberg over measures; None for a
            divergence.
        level: of the interval.
        floor: the noise floor; None where none was measured.
        divergence: whether the effect is one, which has no sign.
        unit: for the reason.
        identical: every weight is equal.
        headroom: False where base is not above chance.

    Returns:
        The verdict, the estimate in it under "effect". Where the code is ``unclear``, the
        estimate's ``more_groups`` says how many fresh groups would decide; None where the reason
        says that none would.

    Raises:
        UsageError: a margin or floor that is negative or not finite; a divergence with a direction.

    """
    m = margin.margin if isinstance(margin, Relative) else margin or 0.0
    if not (isfinite(m) and m >= 0):
        raise UsageError(f"A margin of {m} came; a finite number of at least 0 is needed.")
    if floor is not None and not (isfinite(floor) and floor >= 0):
        raise UsageError(f"A noise floor of {floor} came; it is finite and not negative.")
    if divergence and direction:
        raise UsageError(f"A divergence came with the direction {direction}; it has none.")
    size = f"{100 * m:g} % of base" if isinstance(margin, Relative) else f"{m:g} {unit}".rstrip()
    worst, best = _boundaries(estimate, direction, margin)
    over_worst, over_best = worst.interval(), best.interval()
    measured = _measured(estimate, adjusted_p, level, unit)
    estimates = {"effect": estimate}
    if isinstance(margin, Relative):
        estimates |= {"lower": margin.lower, "upper": margin.upper}

    def verdict(code: str, why: str) -> Verdict:
        return Verdict(code, f"{why}: {measured}.", estimates)

    if identical:
        return verdict("same", "Equal by construction, as every weight is")
    moved = floor is None or abs(estimate.effect) > floor  # more than nothing does
    sure = adjusted_p is not None and adjusted_p < ALPHA
    if over_worst is not None and over_best is not None:
        inside = over_worst[0] > 0 > over_best[1]
        if m == 0:  # no margin was stated: only what moved nowhere at all is the same
            inside = estimate.low == estimate.high == 0
        if direction and over_worst[1] < 0 and moved and (sure or margin is not None):
            return verdict("degraded", f"Worse than base by more than {size}")
        if inside and headroom:
            return verdict("same", f"The whole interval lies within {size}")
        if direction * estimate.effect > 0 and sure and moved:
            return verdict("better", "Better than base")
        if direction and over_worst[0] > 0 and headroom and (moved or m > 0):
            return verdict("preserved", f"Not worse than base by {size} or more")
        beyond = over_worst[1] < 0 or over_best[0] > 0
        if not direction and not divergence and beyond and sure and moved:
            return verdict("shifted", f"The whole interval lies beyond {size}")
        if not headroom:
            return verdict("no_headroom", "Base is not above chance, so nothing can be preserved")
    if divergence:
        if floor is None:
            return verdict("unclear", "No noise floor is known to hold it against")
        if moved:
            return verdict("shifted", f"Above the noise floor of {floor:.3g}")
    if floor is not None and not moved and (divergence or m == 0):
        return verdict("unclear", f"Not above the noise floor of {floor:.3g}")
    more, how_many = _more(worst, best, direction, level)
    if floor is not None and not moved:
        how_many = f"not above the noise floor of {floor:.3g}; {how_many}"
    estimates["effect"] = replace(estimate, more_groups=more)
    return Verdict("unclear", f"Not clear: {measured}; {how_many}.", estimates)


def estimate_relative(
    groups: Sequence[str],
    base: Sequence[float],
    tuned: Sequence[float],
    counts: Sequence[int],
    *,
    margin: float,
    seed: int,
    level: float = 0.95,
) -> Relative:
    """Where tuned stands against (1 − m)·base and (1 + m)·base, for a figure that is positive.

    Raises:
        UsageError: a margin outside (0, 1), or a base whose sum is not positive.
        InputError, NumericsError: as :func:`tunediff.findings.estimates.estimate_ratio`.

    """
    if not 0 < margin < 1 or not sum(base) > 0:
        raise UsageError(
            f"A relative margin of {margin} came for a base that sums to {sum(base):g}; the margin "
            "must lie between 0 and 1, and the base must be positive.",
            "Take an absolute margin.",
        )

    def against(factor: float) -> Estimate:
        effects = [t - factor * b for b, t in zip(base, tuned, strict=True)]
        return estimate_ratio(groups, effects, counts, signed=True, seed=seed, level=level)

    return Relative(margin, against(1 - margin), against(1 + margin))


@dataclass(frozen=True, slots=True)
class _Boundary:
    """An end of the margin, seen from base: ``sign`` turns distances so that positive is better."""

    estimate: Estimate
    at: float
    sign: int

    def interval(self) -> tuple[float, float] | None:
        """How far beyond the boundary both ends of the interval lie."""
        low, high = self.estimate.low, self.estimate.high
        if low is None or high is None:
            return None
        ends = sorted((self.sign * (low - self.at), self.sign * (high - self.at)))
        return ends[0], ends[1]

    def distance(self) -> float:
        return self.sign * (self.estimate.effect - self.at)


def _boundaries(
    estimate: Estimate, direction: Direction, margin: float | Relative | None
) -> tuple[_Boundary, _Boundary]:
    """The margin's worse end, and its better one."""
    sign = direction or 1
    if isinstance(margin, Relative):
        ends = (margin.lower, margin.upper)[::sign]
        return _Boundary(ends[0], 0.0, sign), _Boundary(ends[1], 0.0, sign)
    m = margin or 0.0
    return _Boundary(estimate, -sign * m, sign), _Boundary(estimate, sign * m, sign)


def _more(
    worst: _Boundary, best: _Boundary, direction: Direction, level: float
) -> tuple[tuple[int, int] | None, str]:
    """How many fresh groups would decide, and the sentence that says so.

    With a direction the worse end of the margin decides, between *degraded* and *preserved*.
    Without one it is the nearer end; where the effect lies between both, two ends have to be
    cleared, and each gets half of the chance to fail.
    """
    power, boundary = POWER, worst
    if not direction:
        boundary = min(worst, best, key=lambda b: abs(b.distance()))
        if worst.distance() > 0 > best.distance():
            power = (1 + POWER) / 2
    e = boundary.estimate
    missing = ""
    if e.low is None or e.high is None:
        missing = {
            TOO_FEW: f"{TOO_FEW}, which takes at least {FEWEST_GROUPS} groups; ",
            NO_SPREAD: f"{NO_SPREAD}, which means little under {FEWEST_EQUAL_GROUPS} groups; ",
        }.get(e.note, f"{e.note}; ")
    if e.note == NO_SPREAD:
        more = (FEWEST_EQUAL_GROUPS, FEWEST_EQUAL_GROUPS)
    elif isinstance(e, Outcomes):
        more = more_outcomes(e, boundary.at, level=level, power=power)
    else:
        more = more_groups(e, boundary.at, level=level, power=power)
    if more is not None:
        number = " to ".join(str(n) for n in sorted(set(more)))
        return more, f"{missing}about {number} fresh groups, judged on their own, would decide"
    if not e.standard_error:
        return None, f"{missing}how many groups would decide is not known, as no spread is"
    return None, f"{missing}this cannot be settled by more items"


def _measured(estimate: Estimate, p: float | None, level: float, unit: str) -> str:
    parts = []
    if estimate.low is not None and estimate.high is not None:
        parts.append(f"{100 * level:.4g} % interval {estimate.low:+.4g} to {estimate.high:+.4g}")
    if p is not None:
        parts.append(f"p {p:.2g}")
    parts.append(f"{estimate.groups} groups")
    return f"{estimate.effect:+.4g} {unit}".rstrip() + f" ({', '.join(parts)})"
