"""Is every verdict of a measure, and of the axes together, reached exactly where it should be?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan, nextafter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunediff.errors import InputError, UsageError
from tunediff.findings.decide import (
    CODES,
    PRESERVED,
    Question,
    Relative,
    estimate_relative,
    judge,
    judge_axes,
)
from tunediff.findings.estimates import estimate_ratio
from tunediff.findings.intervals import NO_SPREAD, TOO_FEW, TOO_SPARSE
from tunediff.findings.planning import groups_needed, more_groups, small_sample
from tunediff.findings.proportions import (
    Outcomes,
    estimate_outcomes,
    groups_for_silence,
    more_outcomes,
)
from tunediff.values import Estimate, Verdict

M = 0.25  # a margin that floats hold exactly


def effect(low: float, high: float, **other: Any) -> Estimate:
    """An effect with this interval around its middle."""
    fields = {"effect": (low + high) / 2, "standard_error": (high - low) / 4, **other}
    return Estimate(low=low, high=high, p=0.001, groups=40, count=40, **fields)


def mirrored(e: Estimate) -> Estimate:
    low, high = (None if end is None else -end for end in (e.high, e.low))
    return replace(e, effect=-e.effect, low=low, high=high)


def decide(estimate: Estimate, **changed: Any) -> Verdict:
    given = {"direction": 1, "margin": M, "adjusted_p": 1.0, "unit": "nats/token"}
    return judge(estimate, **{**given, **changed})


ORDERED = [  # low, high, p after Holm, code
    (-0.9, nextafter(-M, -1), 1.0, "degraded"),
    (-0.9, -M, 1.0, "unclear"),  # the upper end must be < −m
    (-0.9, nextafter(-M, -1), 0.001, "degraded"),  # p has no say in it
    (nextafter(-M, 0), nextafter(M, 0), 1.0, "same"),
    (nextafter(-M, 0), M, 1.0, "preserved"),  # inside is strictly inside
    (-M, nextafter(M, 0), 1.0, "unclear"),
    (0.1, 0.2, 0.001, "same"),  # a sure gain within the margin is the same
    (0.1, 0.4, 0.049, "better"),
    (0.1, 0.4, 0.05, "preserved"),  # p must be < .05
    (0.1, 0.4, None, "preserved"),
    (-0.3, 0.5, 0.001, "better"),  # the first that holds: p alone says better
    (-0.5, 0.3, 0.001, "unclear"),  # and only of a positive effect
    (-0.2, 0.9, 1.0, "preserved"),
    (-0.3, 0.9, 1.0, "unclear"),
    (0.3, 0.9, 1.0, "preserved"),
]


@pytest.mark.parametrize(("low", "high", "p", "code"), ORDERED)
@pytest.mark.parametrize("direction", [1, -1])
def test_the_first_that_holds(
    low: float, high: float, p: float | None, code: str, direction: int
) -> None:
    e = effect(low, high)
    found = decide(e if direction == 1 else mirrored(e), direction=direction, adjusted_p=p)
    assert found.code == code


@pytest.mark.parametrize(
    ("low", "high", "code"),
    [
        (nextafter(-M, 0), nextafter(M, 0), "same"),
        (nextafter(M, 1), 0.9, "shifted"),
        (M, 0.9, "unclear"),
        (-0.9, nextafter(-M, -1), "shifted"),
        (-0.9, -M, "unclear"),
        (0.1, 0.4, "unclear"),
        (-0.9, 0.9, "unclear"),
    ],
)
def test_without_a_direction_nothing_is_better_or_worse(low: float, high: float, code: str) -> None:
    assert decide(effect(low, high), direction=0, adjusted_p=0.001).code == code


@given(
    ends=st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted),
    p=st.sampled_from([0.001, 0.5, None]),
    direction=st.sampled_from([-1, 0, 1]),
    margin=st.sampled_from([None, 0.0, 0.02, 0.5]),
    headroom=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_verdicts_are_of_the_table_and_turn_with_the_sign(
    ends: list[float], p: float | None, direction: int, margin: float | None, headroom: bool
) -> None:
    e = effect(*ends)
    kept = {"adjusted_p": p, "margin": margin, "headroom": headroom}
    found = decide(e, direction=direction, **kept)
    assert found.code in CODES
    assert found.code == decide(mirrored(e), direction=-direction, **kept).code
    if not headroom:
        assert found.code not in ("same", "preserved")
    if direction:
        assert found.code != "shifted"
    else:
        assert found.code in ("same", "shifted", "unclear", "no_headroom")
    if found.code == "same":  # the definitions' promise: what is the same is preserved
        m = margin or 0.0
        assert -m < ends[0] <= ends[1] < m or ends == [0, 0]


@pytest.mark.parametrize(
    ("value", "ends", "margin", "code"),
    [
        (1e-3, (5e-4, 2e-3), None, "shifted"),
        (1e-3, (5e-4, 2e-3), 0.01, "same"),  # same comes before shifted
        (1e-3, (5e-4, 2e-3), 1e-3, "shifted"),
        (1e-7, (5e-8, 2e-7), None, "unclear"),  # at the floor is not above it
        (1e-3, (None, None), None, "shifted"),  # a floor needs no interval
        (1e-8, (None, None), None, "unclear"),
    ],
)
def test_a_divergence_is_compared_with_its_floor(
    value: float, ends: tuple[float | None, float | None], margin: float | None, code: str
) -> None:
    e = Estimate(value, *ends, p=None, groups=40, count=40, standard_error=1e-4)
    found = decide(e, direction=0, margin=margin, adjusted_p=None, floor=1e-7, divergence=True)
    assert found.code == code
    assert found.estimates["effect"].more_groups is None


def test_a_divergence_without_a_floor_says_so() -> None:
    e = Estimate(1e-3, 5e-4, 2e-3, p=None, groups=40, count=40, standard_error=1e-4)
    found = decide(e, direction=0, margin=None, adjusted_p=None, divergence=True)
    assert found.code == "unclear"
    assert found.reason.startswith("No noise floor is known to hold it against: ")


@pytest.mark.parametrize(
    ("low", "high", "direction", "margin", "code"),
    [  # the effect is the middle; p is .001, the floor .1
        (0.05, 0.15, 1, None, "unclear"),  # at the floor is not above it: not better
        (0.05, 0.16, 1, None, "better"),
        (-0.15, -0.05, 1, None, "unclear"),  # not degraded
        (-0.16, -0.05, 1, None, "degraded"),
        (0.05, 0.15, 0, None, "unclear"),  # not shifted
        (0.05, 0.16, 0, None, "shifted"),
        (-0.15, -0.05, 0, None, "unclear"),
        (-0.15, -0.05, 1, 0.01, "unclear"),  # a floor beyond the margin hides a loss
        (0.05, 0.15, 0, 0.01, "unclear"),
        (0.05, 0.15, 1, M, "same"),
        (-0.05, 0.15, 0, M, "same"),
        (-0.2, 0.3, 1, M, "preserved"),  # what was stated holds, whatever lies under the floor
        (-0.3, 0.3, 1, M, "unclear"),
    ],
)
@pytest.mark.parametrize("turn", [1, -1])
def test_a_signed_effect_is_held_against_its_floor(
    low: float, high: float, direction: int, margin: float | None, code: str, turn: int
) -> None:
    e = effect(low, high)
    found = decide(
        e if turn == 1 else mirrored(e),
        direction=turn * direction, margin=margin, adjusted_p=0.001, floor=0.1,
    )  # fmt: skip
    assert found.code == code
    if code == "unclear":
        assert "ot above the noise floor of 0.1" in found.reason
        # where a margin was stated, more items could still show that it holds
        settled = found.estimates["effect"].more_groups is None
        assert settled == (margin is None or "cannot be settled" in found.reason)


@pytest.mark.parametrize(
    ("low", "high", "direction", "margin", "claimed", "else_"),
    [
        (-0.9, -0.3, 1, None, "degraded", "unclear"),
        (-0.9, -0.3, 1, 0.0, "degraded", "degraded"),  # a margin of 0 that was stated
        (-0.9, -0.3, 1, M, "degraded", "degraded"),
        (0.3, 0.9, 0, None, "shifted", "unclear"),
        (-0.9, -0.3, 0, M, "shifted", "unclear"),
    ],
)
def test_without_a_margin_a_claim_takes_a_corrected_p(
    low: float, high: float, direction: int, margin: float | None, claimed: str, else_: str
) -> None:
    for p, code in ((0.049, claimed), (0.05, else_), (None, else_)):
        found = decide(effect(low, high), direction=direction, margin=margin, adjusted_p=p)
        assert found.code == code


def test_equal_by_construction_is_the_same_whatever_else() -> None:
    for e in (effect(-0.9, -0.8), Estimate(0.0, None, None, 1.0, 3, 3, 0.0, TOO_FEW)):
        for headroom in (True, False):
            found = decide(e, identical=True, headroom=headroom)
            assert found.code == "same"
            assert found.reason.startswith("Equal by construction")


@pytest.mark.parametrize(
    ("low", "high", "p", "code"),
    [
        (-0.1, 0.1, 1.0, "no_headroom"),  # never same
        (-0.1, 0.9, 1.0, "no_headroom"),  # never preserved
        (-0.9, 0.9, 1.0, "no_headroom"),
        (-0.1, 0.9, 0.001, "better"),  # from chance upward is a gain
        (-0.9, -0.3, 1.0, "degraded"),
    ],
)
def test_at_chance_nothing_is_preserved(low: float, high: float, p: float, code: str) -> None:
    assert decide(effect(low, high), adjusted_p=p, headroom=False).code == code


def test_no_interval_is_unclear_and_never_a_certainty() -> None:
    five = estimate_ratio(list("abcde"), [-1.0, -2, -3, -4, -5], [1] * 5, signed=True, seed=0)
    found = decide(five, adjusted_p=0.001)
    assert found.code == "unclear"
    assert "too few for an interval, which takes at least 6 groups; about" in found.reason
    one = estimate_ratio(["a"], [1.0], [1], signed=True, seed=0)
    assert decide(one).estimates["effect"].more_groups is None
    assert "is not known" in decide(one).reason

    names = [str(i) for i in range(29)]
    equal = estimate_ratio(names, [1.0] * 29, [1] * 29, signed=True, seed=0)
    assert equal.note == NO_SPREAD
    found = decide(equal, adjusted_p=equal.p)
    assert (found.code, found.estimates["effect"].more_groups) == ("unclear", (30, 30))
    assert "no spread seen, which means little under 30 groups; about 30 fresh" in found.reason
    thirty = estimate_ratio([*names, "29"], [1.0] * 30, [1] * 30, signed=True, seed=0)
    assert decide(thirty, adjusted_p=thirty.p).code == "better"

    sparse = estimate_ratio(names, [0.0] * 28 + [9.0], [1] * 29, signed=True, seed=0)
    assert sparse.note == TOO_SPARSE
    assert decide(sparse).code == "unclear"
    assert TOO_SPARSE in decide(sparse).reason


def test_more_groups_is_asked_of_the_margins_worse_end() -> None:
    e = effect(-0.4, 0.5)
    wanted = more_groups(e, -M)
    assert wanted is not None
    found = decide(e)
    assert found.estimates["effect"] == replace(e, more_groups=wanted)
    assert found.reason == (
        "Not clear: +0.05 nats/token (95 % interval -0.4 to +0.5, p 1, 40 groups); about "
        f"{wanted[0]} to {wanted[1]} fresh groups, judged on their own, would decide."
    )
    turned = decide(mirrored(e), direction=-1).estimates["effect"]
    assert turned.more_groups == more_groups(mirrored(e), M) == wanted
    wider = decide(e, level=0.9875).estimates["effect"].more_groups
    assert wider == more_groups(e, -M, level=0.9875)
    assert wider > wanted
    hopeless = decide(effect(-0.75, 0.251))  # its middle is −m, but for a hair
    assert hopeless.estimates["effect"].more_groups is None
    assert hopeless.reason.endswith("; this cannot be settled by more items.")


def test_more_groups_without_a_direction_takes_the_nearer_end() -> None:
    outside = effect(0.2, 0.6)
    assert decide(outside, direction=0).estimates["effect"].more_groups == more_groups(outside, M)
    inside = effect(-0.2, 0.3)  # both ends have to be cleared
    found = decide(inside, direction=0).estimates["effect"].more_groups
    assert found == more_groups(inside, M, power=0.9)
    left = mirrored(inside)
    assert decide(left, direction=0).estimates["effect"].more_groups == more_groups(
        left, -M, power=0.9
    )


def test_silence_asks_for_as_many_as_would_let_it_speak() -> None:
    names = [str(i) for i in range(80)]
    quiet = estimate_outcomes(names, [1.0] * 80, [1.0] * 80, [1] * 80, seed=0)
    found = decide(quiet, margin=0.02, adjusted_p=quiet.p)
    assert found.code == "unclear"
    assert found.estimates["effect"].more_groups == (183, 183)
    names = [str(i) for i in range(183)]
    quiet = estimate_outcomes(names, [1.0] * 183, [1.0] * 183, [1] * 183, seed=0)
    assert decide(quiet, margin=0.02, adjusted_p=quiet.p).code == "same"
    wide = estimate_outcomes(names, [1.0] * 183, [1.0] * 183, [1] * 183, seed=0, level=0.9875)
    found = decide(wide, margin=0.02, adjusted_p=wide.p, level=0.9875)
    wanted = groups_for_silence(0.02, level=0.9875)
    assert (found.code, found.estimates["effect"].more_groups) == ("unclear", (wanted, wanted))
    none = decide(quiet, margin=None, adjusted_p=quiet.p)  # no margin, no number
    assert (none.code, none.estimates["effect"].more_groups) == ("unclear", None)


def test_more_groups_of_outcomes_is_that_of_their_score_interval() -> None:
    base, tuned = [1.0] * 6 + [0.0] * 6 + [1.0] * 88, [0.0] * 6 + [1.0] * 6 + [1.0] * 88
    names = [str(i) for i in range(100)]
    e = estimate_outcomes(names, base, tuned, [1] * 100, seed=0)
    assert isinstance(e, Outcomes)
    found = decide(e, margin=0.02, adjusted_p=e.p)
    assert (found.code, found.estimates["effect"].more_groups) == (
        "unclear",
        more_outcomes(e, -0.02),
    )


def test_non_inferiority_published_example() -> None:
    # Tango (1998): with a margin of 10 points the lower end of the 90 % interval, −0.096, shows
    # the new disinfection of lenses to be not inferior; McNemar's test cannot say it.
    base, tuned = [1.0] * 44, [1.0] * 43 + [0.0]
    names = [str(i) for i in range(44)]
    e = estimate_outcomes(names, base, tuned, [1] * 44, seed=0, level=0.90)
    assert decide(e, margin=0.10, level=0.90, adjusted_p=e.p).code in PRESERVED
    assert decide(e, margin=0.09, level=0.90, adjusted_p=e.p).code == "unclear"


def test_reasons_are_a_sentence_with_the_numbers() -> None:
    found = decide(effect(-0.9, -0.3), adjusted_p=0.004, level=0.9875)
    assert found.reason == (
        "Worse than base by more than 0.25 nats/token: -0.6 nats/token "
        "(98.75 % interval -0.9 to -0.3, p 0.004, 40 groups)."
    )
    assert found.estimates == {"effect": effect(-0.9, -0.3)}


def drawn(groups: int, factor: float, noise: float) -> tuple[list[str], list[float], list[float]]:
    rng = np.random.default_rng(1)
    base = np.exp(rng.standard_normal(groups) / 2)
    tuned = factor * base + noise * rng.standard_normal(groups)
    return [str(i) for i in range(groups)], base.tolist(), tuned.tolist()


@pytest.mark.parametrize(
    ("factor", "direction", "code"),
    [
        (1.0, 1, "same"),
        (0.95, 1, "same"),
        (0.8, 1, "degraded"),
        (1.2, 1, "better"),
        (1.2, -1, "degraded"),
        (0.8, -1, "better"),
        (1.2, 0, "shifted"),
        (0.8, 0, "shifted"),
        (1.0, 0, "same"),
    ],
)
def test_a_relative_margin_is_a_share_of_base(factor: float, direction: Any, code: str) -> None:
    names, base, tuned = drawn(60, factor, 0.05)
    counts = [1] * 60
    margin = estimate_relative(names, base, tuned, counts, margin=0.1, seed=0)
    effects = [t - b for b, t in zip(base, tuned, strict=True)]
    e = estimate_ratio(names, effects, counts, signed=True, seed=0)
    found = judge(e, direction=direction, margin=margin, adjusted_p=e.p)
    assert found.code == code
    assert found.estimates["lower"] == margin.lower
    lower = [t - 0.9 * b for b, t in zip(base, tuned, strict=True)]
    assert margin.lower == estimate_ratio(names, lower, counts, signed=True, seed=0)


def test_base_and_tuned_are_resampled_together() -> None:
    # Tuned is 0.95 of base in every group: apart, base's spread alone would hide it.
    names, base, tuned = drawn(60, 0.95, 0.0)
    margin = estimate_relative(names, base, tuned, [1] * 60, margin=0.1, seed=0)
    assert margin.lower.low is not None
    assert margin.lower.low > 0
    apart = np.std(base) * np.sqrt(2 / 60)
    assert margin.lower.standard_error is not None
    assert margin.lower.standard_error < apart / 10


def test_an_unclear_relative_margin_says_how_many_more() -> None:
    names, base, tuned = drawn(12, 0.95, 0.5)
    margin = estimate_relative(names, base, tuned, [1] * 12, margin=0.1, seed=0)
    effects = [t - b for b, t in zip(base, tuned, strict=True)]
    e = estimate_ratio(names, effects, [1] * 12, signed=True, seed=0)
    found = judge(e, direction=1, margin=margin, adjusted_p=e.p)
    assert found.code == "unclear"
    assert found.estimates["effect"].more_groups == more_groups(margin.lower, 0.0)


def test_refused_margins_and_floors() -> None:
    e = effect(-0.1, 0.1)
    for margin in (-0.1, nan, inf):
        with pytest.raises(UsageError, match="A margin of"):
            decide(e, margin=margin)
    for floor in (-1.0, nan, inf):
        with pytest.raises(UsageError, match="A noise floor of"):
            decide(e, floor=floor)
    with pytest.raises(UsageError, match="A divergence came with the direction 1"):
        decide(e, floor=0.1, divergence=True)
    for margin, base in ((0.0, 1.0), (1.0, 1.0), (0.1, 0.0), (0.1, -1.0)):
        with pytest.raises(UsageError, match="A relative margin of"):
            estimate_relative(["a"], [base], [1.0], [1], margin=margin, seed=0)
    with pytest.raises(UsageError, match="A margin of nan"):
        judge(e, direction=1, margin=Relative(nan, e, e), adjusted_p=1.0)


def maker(center: float, spread: float, p: float | None) -> Callable[[float], Estimate]:
    """An axis whose interval widens as its level rises: half a spread at 95 %, all of it above."""

    def estimate(level: float) -> Estimate:
        half = spread if level > 0.95 else spread / 2
        return Estimate(center, center - half, center + half, p, 40, 40, spread / 4)

    return estimate


def test_axes_share_five_percent() -> None:
    seen: list[float] = []

    def listening(level: float) -> Estimate:
        seen.append(level)
        return maker(0.0, 0.1, 0.9)(level)

    found = judge_axes(
        {
            "target": Question(maker(0.5, 0.4, 0.012), 1, M),
            "general": Question(maker(0.5, 0.4, 0.02), 1, M),
            "safety": Question(maker(-0.6, 0.3, 0.001), 1, M),
            "fluency": Question(listening, -1, M),
        }
    )
    assert found.level == 1 - 0.05 / 4
    assert seen[0] == found.level
    assert found.p == pytest.approx(
        {"target": 0.036, "general": 0.04, "safety": 0.004, "fluency": 0.9}
    )
    assert {axis: v.code for axis, v in found.verdicts.items()} == {
        "target": "better",
        "general": "better",
        "safety": "degraded",
        "fluency": "same",
    }
    assert not found.all_preserved
    assert "98.75 % interval" in found.verdicts["target"].reason
    assert "p 0.036" in found.verdicts["target"].reason


def test_holm_over_axes_takes_a_claim_back() -> None:
    alone = judge_axes({"target": Question(maker(0.5, 0.4, 0.03), 1, M)})
    assert alone.verdicts["target"].code == "better"
    assert alone.level == 0.95
    both = judge_axes(
        {
            "target": Question(maker(0.5, 0.4, 0.03), 1, M),
            "general": Question(maker(0.0, 0.1, 0.8), 1, M),
        }
    )
    assert both.verdicts["target"].code == "preserved"
    assert both.p["target"] == 0.06


def test_all_preserved_needs_no_correction() -> None:
    # Inside the margin at 95 %, not at 97.5 %: unclear as a claim of its own, yet kept.
    edge = Question(maker(0.0, 0.4, 0.9), 1, M)
    found = judge_axes({"target": edge, "general": edge})
    assert [v.code for v in found.verdicts.values()] == ["unclear", "unclear"]
    assert found.all_preserved
    worse = Question(maker(-0.1, 0.4, 0.9), 1, M)
    assert not judge_axes({"target": edge, "general": worse}).all_preserved
    chance = replace(edge, headroom=False)
    assert not judge_axes({"target": edge, "general": chance}).all_preserved
    equal = replace(worse, identical=True)
    assert judge_axes({"target": equal, "general": equal}).all_preserved


def test_an_axis_without_p_leaves_the_others_their_own() -> None:
    found = judge_axes(
        {
            "target": Question(maker(0.5, 0.4, 0.03), 1, M),
            "general": Question(maker(0.5, 0.4, None), 1, M),
        }
    )
    assert found.p == {"target": 0.03, "general": None}
    assert found.verdicts["general"].code == "preserved"
    with pytest.raises(InputError, match="No axis came"):
        judge_axes({})


def test_an_axis_without_a_figure_is_one_of_those_asked() -> None:
    known = Question(maker(0.5, 0.4, 0.03), 1, M)
    silent = Question(None, 1, M, missing="Tuned said nothing.")
    found = judge_axes({"target": known, "fluency": silent})
    assert found.level == 0.975
    assert found.p == {"target": 0.06, "fluency": None}  # Holm's 2 · .03
    assert found.verdicts["target"].code == "preserved"
    assert found.verdicts["fluency"] == Verdict("unclear", "Tuned said nothing.")
    assert not found.all_preserved
    equal = judge_axes({"fluency": replace(silent, identical=True)})
    assert (equal.verdicts["fluency"].code, equal.all_preserved) == ("same", True)


def test_an_axis_is_held_against_its_floor() -> None:
    gain = Question(maker(0.5, 0.4, 0.001), 1, M)
    assert judge_axes({"target": gain}).verdicts["target"].code == "better"
    hidden = judge_axes({"target": replace(gain, floor=0.5)}).verdicts["target"]
    assert hidden.code == "preserved"


def test_groups_needed_is_the_formula_and_what_an_unknown_spread_costs() -> None:
    assert groups_needed(1.0, 1, 1.0) - small_sample() == pytest.approx(7.84888, rel=1e-5)
    assert small_sample() == pytest.approx(0.85 * 1.959964**2, rel=1e-6)
    assert small_sample(means="sign-flip") == pytest.approx(1.959964**2 / 2, rel=1e-6)
    assert small_sample(level=0.9875) == pytest.approx(0.85 * 2.497705**2, rel=1e-6)
    # Guenther's term is that of the t test: its exact power by the noncentral t.
    from scipy.stats import nct, t

    for distance in (0.5, 0.8, 1.0):
        n = groups_needed(1.0, 1, distance, means="sign-flip")
        power = nct.sf(t.ppf(0.975, n - 1), n - 1, distance * np.sqrt(n))
        assert power == pytest.approx(0.80, abs=0.01)
