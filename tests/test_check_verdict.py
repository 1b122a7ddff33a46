"""Is every verdict of `check` reached exactly where DEFINITIONS.md puts it?"""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan, nextafter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunediff.errors import NumericsError, RunError, UsageError
from tunediff.findings.check import VERDICTS, PointFigures, check_verdict, refuse_thresholds
from tunediff.findings.estimates import estimate_ratio
from tunediff.findings.planning import more_groups
from tunediff.values import Estimate, Verdict

POINT = PointFigures(
    ppl_base=10.0, ppl_tuned=9.0, logit_mse=0.5, ppl_floor=0.25, logit_mse_floor=1e-6
)


def delta(low: float, high: float, p: float = 0.001, groups: int = 12, **other: Any) -> Estimate:
    """ΔNLL with this interval around its middle."""
    fields = {"effect": (low + high) / 2, "standard_error": (high - low) / 4, **other}
    return Estimate(low=low, high=high, p=p, groups=groups, count=100 * groups, **fields)


def decide(estimate: Estimate | None = None, **changed: Any) -> Verdict:
    """Decide on twelve texts well above the floor, unless told otherwise."""
    given = {
        "weights_equal": False,
        "scored": True,
        "delta_nll": estimate,
        "kl": 0.25,
        "mse_centred": 0.5,
        "kl_floor": 1e-7,
        "mse_centred_floor": 1e-6,
        "texts": 12,
        "point": None,
        "mse_threshold": None,
        "ppl_threshold": None,
    }
    return check_verdict(**{**given, **changed})


NOTHING = {"kl": None, "mse_centred": None, "kl_floor": None, "mse_centred_floor": None}
GAIN = delta(-0.3, -0.1)


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("texts", [0, 1, 12])
def test_equal_weights_are_identical_whatever_else(scored: bool, texts: int) -> None:
    found = decide(GAIN, weights_equal=True, scored=scored, texts=texts)
    assert found.code == "identical"
    assert found.reason.startswith("Every weight of the tuned model equals base's")
    assert found.estimates == {"delta_nll": GAIN}
    assert decide(None, weights_equal=True, scored=scored, texts=0, **NOTHING).estimates == {}


def test_without_texts_weights_differ() -> None:
    found = decide(None, scored=False, texts=0, **NOTHING)
    assert found.code == "weights_differ"
    assert "no text was given" in found.reason


@pytest.mark.parametrize(
    ("kl", "mse", "code"),
    [
        (1e-7, 1e-6, "indistinguishable"),  # at the floor is not above it
        (0.0, 0.0, "indistinguishable"),
        (nextafter(1e-7, 1), 1e-6, "tuned"),
        (1e-7, nextafter(1e-6, 1), "tuned"),
    ],
)
def test_indistinguishable_needs_both_at_or_below_their_floors(
    kl: float, mse: float, code: str
) -> None:
    found = decide(GAIN, kl=kl, mse_centred=mse)
    assert found.code == code
    assert "floor 1e-07" in found.reason or "floor 1e-06" in found.reason


def test_indistinguishable_holds_whatever_the_interval_says() -> None:
    quiet = {"kl": 1e-9, "mse_centred": 1e-9}
    for estimate in (GAIN, delta(-1, 1), Estimate(0.0, None, None, 1.0, 12, 9, 0.0, "…")):
        assert decide(estimate, **quiet).code == "indistinguishable"


@pytest.mark.parametrize(
    ("estimate", "code"),
    [
        (delta(-0.3, nextafter(0, -1), p=0.0499), "tuned"),
        (delta(-0.3, 0.0), "unclear"),  # the interval must lie below 0
        (delta(-0.3, -0.1, p=0.05), "unclear"),  # p must be < .05
        (delta(-0.009, -0.001), "tuned"),  # a small gain that is sure is a gain
        (delta(-0.009, -0.001, p=0.05), "diverged_without_gain"),
        (delta(-0.01, 0.2), "unclear"),  # the lower end must be > −0.01
        (delta(nextafter(-0.01, 0), 0.2), "diverged_without_gain"),
        (delta(0.1, 0.2), "diverged_without_gain"),
        (delta(-0.2, 0.2), "unclear"),
        (delta(-0.3, -0.3), "tuned"),  # thirty equal effects
    ],
)
def test_the_interval_decides(estimate: Estimate, code: str) -> None:
    assert decide(estimate).code == code


def test_reasons_are_one_sentence_with_the_numbers() -> None:
    assert decide(GAIN).reason == (
        "The tuned model predicts the texts better: NLL -0.2 nats/token (95 % interval -0.3 to "
        "-0.1, sign-flip p 0.001, 12 texts); KL 0.25 nats/token, floor 1e-07."
    )
    assert decide(delta(0.1, 0.2), kl=1e-8).reason == (
        "The outputs differ (centred logit MSE 0.5, floor 1e-06) without a gain worth the name: "
        "NLL +0.15 nats/token (95 % interval +0.1 to +0.2, sign-flip p 0.001, 12 texts); a gain "
        "of 0.01 or more is ruled out."
    )


def test_unclear_asks_for_the_boundary_that_is_cheaper_to_clear() -> None:
    toward_gain = delta(-0.06, 0.02)  # effect −0.02: only a gain can come of it
    found = decide(toward_gain)
    wanted = more_groups(toward_gain, 0.0)
    assert wanted is not None
    assert found.estimates["delta_nll"] == replace(toward_gain, more_groups=wanted)
    assert (
        f"about {wanted[0]} to {wanted[1]} fresh texts, judged on their own, would show "
        "whether it is a gain." in found.reason
    )
    toward_none = delta(-0.03, 0.05)  # effect +0.01: only "no gain" can
    found = decide(toward_none)
    assert found.estimates["delta_nll"].more_groups == more_groups(toward_none, -0.01)
    assert found.reason.endswith("would show whether it is no gain.")
    for effect, boundary in ((-0.006, 0.0), (-0.004, -0.01)):  # between them: the farther
        between = delta(-0.03, 0.02, effect=effect)
        found = decide(between).estimates["delta_nll"]
        assert found.more_groups == more_groups(between, boundary)


def test_unclear_says_where_no_number_of_texts_can_settle_it() -> None:
    hopeless = delta(-0.2, 0.2, effect=-0.005, standard_error=0.0501)
    found = decide(hopeless)
    assert found.reason.endswith("; this cannot be settled by more items.")
    assert found.estimates["delta_nll"].more_groups is None
    assert decide(replace(hopeless, standard_error=0.0499)).estimates["delta_nll"].more_groups


def test_unclear_speaks_of_groups_where_texts_are_grouped() -> None:
    found = decide(delta(-0.06, 0.02, groups=8), texts=24)
    assert "24 texts in 8 groups" in found.reason
    assert "fresh groups, judged on their own" in found.reason


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (5, "too few for an interval: at least 6 groups are needed"),
        (6, "no spread seen: where all effects are equal, at least 30 groups are needed"),
        (29, "no spread seen"),
    ],
)
def test_no_interval_is_unclear_and_never_a_certainty(groups: int, words: str) -> None:
    names = [str(i % groups) for i in range(30 * groups)]
    estimate = estimate_ratio(names, [-1.0] * len(names), [1] * len(names), signed=True, seed=0)
    found = decide(estimate, texts=len(names))
    assert found.code == "unclear"
    assert words in found.reason
    assert f"{len(names)} texts in {groups} groups" in found.reason


def test_thirty_equal_gains_are_tuned() -> None:
    names = [str(i) for i in range(30)]
    equal = estimate_ratio(names, [-1.0] * 30, [2] * 30, signed=True, seed=0)
    assert decide(equal, texts=30).code == "tuned"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, "tuned"),
        ({"ppl_tuned": 9.75, "logit_mse": 1e-6}, "indistinguishable"),  # both at the floor
        ({"ppl_tuned": 10.25, "logit_mse": 1e-6}, "indistinguishable"),
        ({"ppl_tuned": 9.75, "logit_mse": nextafter(1e-6, 1)}, "diverged_without_gain"),
        ({"ppl_tuned": nextafter(9.75, 0), "logit_mse": 0.0}, "tuned"),
        ({"ppl_tuned": nextafter(10.25, 11), "logit_mse": 0.0}, "diverged_without_gain"),
        ({"ppl_tuned": 30.0}, "diverged_without_gain"),
    ],
)
@pytest.mark.parametrize("texts", [1, 5])
def test_the_point_rule_decides_under_six_texts(
    changed: dict[str, float], code: str, texts: int
) -> None:
    found = decide(None, texts=texts, point=replace(POINT, **changed), **NOTHING)
    assert found.code == code
    few = "one prompt is one observation" if texts == 1 else "5 texts are 5 observations"
    assert found.reason.endswith(f"; {few}.")


def test_thresholds_take_the_floors_place() -> None:
    def by(mse: float | None, ppl: float | None) -> str:
        return decide(texts=1, point=POINT, mse_threshold=mse, ppl_threshold=ppl).code

    assert by(None, None) == "tuned"
    assert by(0.5, 1.0) == "indistinguishable"  # both at their threshold
    assert by(0.5, None) == "tuned"
    assert by(None, 1.0) == "diverged_without_gain"
    assert by(0.0, 0.0) == "tuned"


def test_six_texts_leave_the_point_rule() -> None:
    assert decide(delta(0.1, 0.2), texts=6, point=POINT).code == "diverged_without_gain"
    assert decide(delta(0.1, 0.2), texts=5, point=POINT).code == "tuned"


@pytest.mark.parametrize(("mse", "ppl", "name"), [(1e-4, None, "mse"), (None, 0.01, "ppl")])
@pytest.mark.parametrize("weights_equal", [True, False])
def test_thresholds_with_six_texts_are_an_error_that_says_so(
    mse: float | None, ppl: float | None, name: str, weights_equal: bool
) -> None:
    with pytest.raises(UsageError) as caught:
        decide(GAIN, texts=6, weights_equal=weights_equal, mse_threshold=mse, ppl_threshold=ppl)
    assert caught.value.message == (
        f"--{name}-threshold came with 6 texts; the thresholds belong to the point rule, which "
        "decides only where fewer than 6 texts are given."
    )
    assert "Leave the threshold out" in caught.value.hint
    refuse_thresholds(5, mse, ppl)


@pytest.mark.parametrize("value", [-1e-9, nan, inf])
def test_thresholds_must_be_numbers_of_at_least_zero(value: float) -> None:
    with pytest.raises(UsageError, match=r"--ppl-threshold .* came; a finite number of at least 0"):
        decide(texts=1, point=POINT, ppl_threshold=value)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"delta_nll": None}, RunError, "no difference in NLL came"),
        ({"kl": None}, RunError, "no KL came"),
        ({"kl_floor": None}, RunError, "no floor of KL came"),
        ({"mse_centred": nan}, NumericsError, "centred logit MSE came as nan"),
        ({"mse_centred_floor": inf}, NumericsError, "floor of centred logit MSE came as inf"),
        ({"delta_nll": replace(GAIN, p=None)}, RunError, "no sign-flip p came"),
        ({"texts": 1}, RunError, "no point figures came"),
        ({"texts": 1, "point": replace(POINT, ppl_tuned=nan)}, NumericsError, "perplexity came"),
    ],
)
def test_missing_or_broken_figures_are_errors(
    changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        decide(**{"estimate": GAIN, **changed}) if "delta_nll" not in changed else decide(**changed)


ends = st.sampled_from([-0.3, -0.02, -0.01, -0.005, -1e-9, 0.0, 0.01, 0.2])
quiet_or_loud = st.sampled_from([0.0, 1e-7, 1e-6, 2e-6, 0.1])


@given(
    low=ends,
    width=ends.map(abs),
    p=st.sampled_from([0.001, 0.05, 0.6]),
    kl=quiet_or_loud,
    mse=quiet_or_loud,
    weights_equal=st.booleans(),
    scored=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_every_case_has_the_one_verdict_of_the_table(
    low: float, width: float, p: float, kl: float, mse: float, weights_equal: bool, scored: bool
) -> None:
    high = low + width
    above = kl > 1e-7 or mse > 1e-6
    tuned = high < 0 and p < 0.05
    holds = {
        "identical": weights_equal,
        "weights_differ": not weights_equal and not scored,
    }
    by_text = not weights_equal and scored
    holds["indistinguishable"] = by_text and not above
    holds["tuned"] = by_text and above and tuned
    holds["diverged_without_gain"] = by_text and above and not tuned and low > -0.01
    holds["unclear"] = by_text and above and not tuned and low <= -0.01
    assert set(holds) == set(VERDICTS)
    found = decide(
        delta(low, high, p), kl=kl, mse_centred=mse, weights_equal=weights_equal, scored=scored
    )
    assert [code for code, held in holds.items() if held] == [found.code]
    assert found.reason.endswith(".")
    assert ". " not in found.reason


def test_from_rows_to_verdict() -> None:
    rng = np.random.default_rng(0)
    names = [f"text {i}" for i in range(40)]
    counts = rng.integers(20, 400, 40)
    for shift, code in ((-0.3, "tuned"), (0.3, "diverged_without_gain"), (-0.02, "unclear")):
        sums = counts * (shift + 0.2 * rng.standard_normal(40))
        estimate = estimate_ratio(names, sums.tolist(), counts.tolist(), signed=True, seed=1)
        assert decide(estimate, texts=40).code == code
