"""Are intervals, p values, percentiles and "how many more" what their definitions say?"""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunediff.errors import InputError, NumericsError, UsageError
from tunediff.findings.estimates import estimate_ratio, pool_groups
from tunediff.findings.intervals import (
    NO_SPREAD,
    TOO_FEW,
    TOO_SPARSE,
    bca_interval,
    ratio_interval,
)
from tunediff.findings.permutation import sign_flip
from tunediff.findings.planning import groups_needed, more_groups
from tunediff.findings.quantiles import DELTA_P_PERCENTILES, KL_PERCENTILES, percentiles
from tunediff.values import Estimate

finite = st.floats(-100, 100).map(lambda x: round(x, 3))


def drawn(groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Token-weighted groups: sums and counts that correlate."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(groups)
    counts = np.maximum(1, np.round(np.exp(4 + 0.7 * z)))
    return counts * (0.5 * z + rng.standard_normal(groups)), counts


def slow_interval(
    sums: list[float], counts: list[float], *, seed: int, resamples: int, flat: str = "infinite"
) -> tuple[float, float]:
    """Bootstrap-t by the definition, in plain Python; ``flat`` says what se* = 0 becomes."""
    G = len(sums)

    def ratio_and_error(s: list[float], n: list[float]) -> tuple[float, float]:
        theta = math.fsum(s) / math.fsum(n)
        squares = math.fsum((a - theta * b) ** 2 for a, b in zip(s, n, strict=True))
        return theta, math.sqrt(G / (G - 1) * squares) / math.fsum(n)

    theta, error = ratio_and_error(sums, counts)
    ts = []
    for row in np.random.default_rng(seed).integers(0, G, size=(resamples, G)):
        theta_star, error_star = ratio_and_error([sums[i] for i in row], [counts[i] for i in row])
        if error_star > 1e-9 * error:
            ts.append((theta_star - theta) / error_star)
        elif flat == "infinite":
            ts.append(math.copysign(math.inf, theta_star - theta))
    ts.sort()
    place = int((len(ts) + 1) * 0.025 + 1e-9)
    return theta - ts[len(ts) - place] * error, theta - ts[place - 1] * error


@pytest.mark.parametrize("groups", [6, 7, 31])
def test_ratio_interval_equals_the_definition_in_plain_python(groups: int) -> None:
    sums, counts = drawn(groups, seed=groups)
    found = ratio_interval(sums, counts, seed=5, resamples=999)
    wanted = slow_interval(sums.tolist(), counts.tolist(), seed=5, resamples=999)
    assert (found.low, found.high) == pytest.approx(wanted, rel=1e-9)


def test_resamples_without_spread_count_as_infinite_and_are_not_dropped() -> None:
    # Half of the effects are equal: 1.6 % of the resamples draw them alone, less than the 2.5 %
    # that would leave the interval without an end.
    sums, counts = [0.0, 0.0, 0.0, 1.0, 2.3, 3.7], [1.0, 2.3, 1.7, 1.9, 1.3, 2.9]
    found = ratio_interval(np.array(sums), np.array(counts), seed=1, resamples=1999)
    honest = slow_interval(sums, counts, seed=1, resamples=1999)
    dropped = slow_interval(sums, counts, seed=1, resamples=1999, flat="dropped")
    assert (found.low, found.high) == pytest.approx(honest, rel=1e-9)
    assert dropped[1] < honest[1]  # the planted fault is a narrower interval, and is seen


def test_one_group_that_differs_has_no_interval() -> None:
    sums = np.zeros(30)
    sums[3] = 1.0
    found = ratio_interval(sums, np.ones(30), seed=0, resamples=999)
    assert (found.low, found.high, found.note) == (None, None, TOO_SPARSE)
    assert found.standard_error == pytest.approx(1 / 30)


def test_a_draw_of_zeros_alone_widens_both_ends() -> None:
    # θ is 0, and θ* of 1.6 % of the resamples is 0 without spread: 0/0 says nothing either way.
    sums = np.array([0.0, 0.0, 0.0, 2.0, -0.5, -1.5])
    counts = np.array([1.0, 2.3, 1.7, 1.9, 1.3, 2.9])
    found = ratio_interval(sums, counts, seed=0)
    mirrored = ratio_interval(-sums, counts, seed=0)
    assert found.low is not None
    assert found.high is not None
    assert (found.low, found.high) == (-mirrored.high, -mirrored.low)  # type: ignore[operator]


def test_standard_error_of_a_mean_is_the_textbook_one() -> None:
    effects = np.random.default_rng(2).standard_normal(40)
    found = ratio_interval(effects, np.ones(40), seed=0, resamples=199)
    assert found.standard_error == pytest.approx(effects.std(ddof=1) / math.sqrt(40), rel=1e-12)


def test_many_normal_groups_give_the_textbook_interval() -> None:
    effects = np.random.default_rng(3).standard_normal(400)
    found = ratio_interval(effects, np.ones(400), seed=0)
    half = 1.966 * effects.std(ddof=1) / math.sqrt(400)  # Student's t, 399 degrees of freedom
    assert found.low == pytest.approx(effects.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(effects.mean() + half, abs=0.05 * half)


def test_the_seed_alone_decides_the_bits() -> None:
    sums, counts = drawn(50, seed=1)
    assert ratio_interval(sums, counts, seed=7) == ratio_interval(sums, counts, seed=7)
    assert ratio_interval(sums, counts, seed=7) != ratio_interval(sums, counts, seed=8)


def test_chunks_cover_every_resample() -> None:
    found = ratio_interval(*drawn(3000, seed=4), seed=0, resamples=999)  # 350 rows a chunk
    width = (found.high or 0) - (found.low or 0)
    assert width == pytest.approx(2 * 1.96 * (found.standard_error or 0), rel=0.1)


@given(
    effects=st.lists(finite, min_size=6, max_size=12),
    factor=st.sampled_from([0.001, 3.0, 1e6]),
    shift=st.sampled_from([-2.0, 0.0, 40.0]),
)
@settings(max_examples=40, deadline=None)
def test_interval_follows_unit_sign_and_origin(
    effects: list[float], factor: float, shift: float
) -> None:
    counts = np.arange(1.0, len(effects) + 1)
    sums = np.array(effects) * counts
    plain = ratio_interval(sums, counts, seed=0, resamples=199)
    moved = ratio_interval(factor * (sums + shift * counts), counts, seed=0, resamples=199)
    mirrored = ratio_interval(-sums, counts, seed=0, resamples=199)
    assert plain.note == moved.note == mirrored.note
    if plain.low is not None and plain.high is not None:
        scale = 1e-9 * factor * (100 + abs(shift))
        assert moved.low == pytest.approx(factor * (plain.low + shift), rel=1e-6, abs=scale)
        assert moved.high == pytest.approx(factor * (plain.high + shift), rel=1e-6, abs=scale)
        assert mirrored.low == pytest.approx(-plain.high, rel=1e-9, abs=1e-9)
        assert mirrored.high == pytest.approx(-plain.low, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("groups", "note"), [(1, TOO_FEW), (5, TOO_FEW), (6, "")])
def test_fewer_than_six_groups_have_no_interval(groups: int, note: str) -> None:
    effects = np.arange(groups, dtype=float)
    found = ratio_interval(effects, np.ones(groups), seed=0, resamples=999)
    assert found.note == note
    assert (found.low is None) == (found.high is None) == bool(note)
    assert (found.standard_error is None) == (groups == 1)


@pytest.mark.parametrize("effect", [0.0, 0.1, -1 / 3])
def test_equal_effects_need_thirty_groups(effect: float) -> None:
    counts = np.arange(1.0, 30)  # 29 groups
    few = ratio_interval(effect * counts, counts, seed=0)
    assert (few.low, few.high, few.standard_error, few.note) == (None, None, 0.0, NO_SPREAD)
    counts = np.arange(1.0, 31)
    enough = ratio_interval(effect * counts, counts, seed=0)
    assert enough.low == enough.high == pytest.approx(effect)
    assert (enough.standard_error, enough.note) == (0.0, "")


def test_interval_errors_say_what_came() -> None:
    with pytest.raises(NumericsError, match="not finite or a count that is not positive"):
        ratio_interval(np.array([1.0, np.nan]), np.ones(2), seed=0)
    with pytest.raises(NumericsError, match="not positive"):
        ratio_interval(np.ones(2), np.array([1.0, 0.0]), seed=0)
    with pytest.raises(InputError, match=r"Sums of shape \(0,\) and counts of shape \(0,\) came"):
        ratio_interval(np.array([]), np.array([]), seed=0)
    with pytest.raises(UsageError, match=r"38 resamples came for a level of 0.95; at least 39"):
        ratio_interval(*drawn(6, 0), seed=0, resamples=38)
    assert ratio_interval(*drawn(6, 0), seed=0, resamples=39).low is not None
    with pytest.raises(UsageError, match="A level of 1 came"):
        ratio_interval(*drawn(6, 0), seed=0, level=1)


@pytest.mark.parametrize("statistic", ["mean", "rms"])
def test_bca_equals_scipy(statistic: str) -> None:
    from scipy.stats import bootstrap

    data = np.exp(np.random.default_rng(0).standard_normal(40))

    def of_weights(w: np.ndarray) -> np.ndarray:
        if statistic == "mean":
            return w @ data / w.sum(axis=1)
        return np.sqrt(w @ data**2 / w.sum(axis=1))

    def of_data(x: np.ndarray, axis: int) -> np.ndarray:
        return x.mean(axis=axis) if statistic == "mean" else np.sqrt((x**2).mean(axis=axis))

    found = bca_interval(of_weights, 40, seed=1, resamples=20_000)
    wanted = bootstrap(
        (data,), of_data, method="BCa", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    width = wanted.high - wanted.low
    assert found.low == pytest.approx(wanted.low, abs=0.02 * width)
    assert found.high == pytest.approx(wanted.high, abs=0.03 * width)


def test_bca_without_spread_or_groups_says_so() -> None:
    def mean(w: np.ndarray) -> np.ndarray:
        return w @ np.ones(w.shape[1]) / w.sum(axis=1)

    assert bca_interval(mean, 5, seed=0).note == TOO_FEW
    assert bca_interval(mean, 29, seed=0, resamples=99).note == NO_SPREAD
    assert bca_interval(mean, 30, seed=0, resamples=99).low == pytest.approx(1)
    with pytest.raises(InputError, match="over 0 groups"):
        bca_interval(mean, 0, seed=0)
    with pytest.raises(NumericsError, match="resampled figure is not finite"):
        bca_interval(lambda w: np.full(len(w), np.nan), 6, seed=0)


@pytest.mark.parametrize("effects", [[0.3, -0.1, 0.8, 0.2, 1.1, -0.4, 0.9, 0.05], [1, 2, 3, -3]])
def test_sign_flip_equals_scipys_exact_permutation(effects: list[float]) -> None:
    from scipy.stats import permutation_test

    wanted = permutation_test(
        (np.array(effects),),
        lambda x, axis: np.abs(x.sum(axis=axis)),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=np.inf,
    ).pvalue
    assert sign_flip(np.array(effects), seed=0) == pytest.approx(wanted, abs=1e-12)


def test_sign_flip_known_values() -> None:
    assert sign_flip(np.ones(6), seed=0) == 2 / 64
    assert sign_flip(np.ones(5), seed=0) == 2 / 32  # why six groups are the fewest
    assert sign_flip(np.zeros(8), seed=0) == 1.0
    assert sign_flip(np.array([2.0, 0, 0, 0]), seed=0) == 1.0
    assert sign_flip(np.full(40, 0.1), seed=0) == 1 / 10_000  # never 0 by sampling


def test_sign_flip_counts_ties_in_spite_of_rounding() -> None:
    # In tenths, 12 of 16 patterns reach the observed sum; bare floats lose one of them.
    assert sign_flip(np.array([-0.4, 0.6, 0.3, -0.9, -0.2]), seed=0) == 12 / 16


def test_sampled_sign_flip_agrees_with_the_exact_one() -> None:
    effects = np.random.default_rng(5).standard_normal(16) + 0.4
    exact = sign_flip(effects, seed=0)
    # Two effects too small to matter push it over to sampling.
    sampled = sign_flip(np.append(effects, [1e-14, 1e-14]), seed=1, resamples=40_000)
    assert 0.01 < exact < 0.5
    assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40_000))


@given(st.lists(finite, min_size=1, max_size=9), st.randoms())
@settings(max_examples=50, deadline=None)
def test_sign_flip_ignores_order_and_sign(effects: list[float], random: Random) -> None:
    e = np.array(effects)
    p = sign_flip(e, seed=0)
    assert 2.0 ** -(len(e) - 1) <= p <= 1
    assert p == sign_flip(-e, seed=0) == sign_flip(e[::-1], seed=0)


def test_sign_flip_errors() -> None:
    with pytest.raises(InputError, match=r"Effects of shape \(0,\) came"):
        sign_flip(np.array([]), seed=0)
    with pytest.raises(NumericsError, match="not finite came to a sign-flip"):
        sign_flip(np.array([1.0, np.inf]), seed=0)


def estimate(effect: float, error: float | None, groups: int) -> Estimate:
    return Estimate(effect, None, None, None, groups, groups, standard_error=error)


def test_groups_needed_known_value() -> None:
    # (1.95996 + 0.84162)² = 7.84888 at a distance of one standard deviation, and 0.85 · 1.95996².
    assert groups_needed(1.0, 1, 1.0) == pytest.approx(7.84888 + 3.26524, rel=1e-5)
    assert groups_needed(0.5, 16, 0.1) == pytest.approx(7.84888 * 400 + 3.26524, rel=1e-5)
    with pytest.raises(UsageError, match="both must be positive"):
        groups_needed(0.0, 6, 0.1)


def test_more_groups_ranges_over_the_standard_errors_uncertainty() -> None:
    from scipy.stats import chi2

    n = groups_needed(0.02, 12, 0.03) - 3.26524
    wanted = tuple(math.ceil(n * 11 / chi2.ppf(q, 11) + 3.26524) for q in (0.9, 0.1))
    assert more_groups(estimate(-0.04, 0.02, 12), -0.01) == wanted == (30, 86)


def test_more_groups_holds_the_truth_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    truth = math.ceil(groups_needed(1.0, 1, 0.5))
    held = 0
    for _ in range(1000):
        error = rng.standard_normal(12).std(ddof=1) / math.sqrt(12)
        found = more_groups(estimate(0.5, error, 12), 0.0)
        assert found is not None
        held += found[0] <= truth <= found[1]
    assert held / 1000 == pytest.approx(0.80, abs=0.05)


def test_more_groups_says_none_where_it_cannot_say() -> None:
    assert more_groups(estimate(0.0999, 1.0, 20), 0.0) is None  # below a tenth of the error
    assert more_groups(estimate(0.1, 1.0, 20), 0.0) is not None
    assert more_groups(estimate(0.1, 0.0, 20), 0.0) is None
    assert more_groups(estimate(0.1, None, 1), 0.0) is None
    assert more_groups(estimate(100.0, 1.0, 20), 0.0) == (6, 6)


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abcdefgh"), finite, st.integers(1, 500)), min_size=1, max_size=40
    ),
    random=st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_shuffled_items_give_the_same_bits(
    rows: list[tuple[str, float, int]], random: Random
) -> None:
    shuffled = rows[:]
    random.shuffle(shuffled)
    one, other = (
        estimate_ratio(*map(list, zip(*order, strict=True)), signed=True, seed=3)
        for order in (rows, shuffled)
    )
    assert repr(one) == repr(other)


def test_unsorted_groups_would_change_the_bits() -> None:
    # The planted fault: the same groups in another order, not sorted by name.
    sums, counts = drawn(20, seed=9)
    assert ratio_interval(sums, counts, seed=0) != ratio_interval(sums[::-1], counts[::-1], seed=0)


def test_pool_groups_adds_by_name() -> None:
    names, sums, counts = pool_groups(list("babb"), [1e16, 2.0, 1.0, -1e16], [3, 4, 5, 6])
    assert names == ("a", "b")
    assert sums.tolist() == [2.0, 1.0]  # a running sum would have lost the 1
    assert counts.tolist() == [4, 14]
    with pytest.raises(InputError, match="0 groups, 0 sums and 0 counts came"):
        pool_groups([], [], [])
    with pytest.raises(InputError, match="2 groups, 1 sums and 2 counts came"):
        pool_groups(["a", "b"], [1.0], [1, 1])
    with pytest.raises(NumericsError, match="A sum that is not finite") as caught:
        pool_groups(["a"], [math.nan], [1])
    assert "reason in place of an effect" in caught.value.hint


def test_estimate_pools_tokens_and_a_divergence_has_no_p() -> None:
    groups = [f"item {i}" for i in range(8)]
    sums = [float(i) for i in range(8)]
    counts = [10 * (i + 1) for i in range(8)]
    signed = estimate_ratio(groups, sums, counts, signed=True, seed=0)
    assert signed.effect == pytest.approx(28 / 360)  # not the mean of the items' means
    assert signed.p == sign_flip(np.array(sums), seed=0) == 2 / 128
    assert (signed.groups, signed.count, signed.note, signed.more_groups) == (8, 360, "", None)
    assert estimate_ratio(groups, sums, counts, signed=False, seed=0).p is None


def test_groups_not_items_are_resampled() -> None:
    # 40 items in 8 groups of equal items: the spread is that of 8 observations.
    effects = np.random.default_rng(0).standard_normal(8)
    of_groups = estimate_ratio(
        [f"g{i // 5}" for i in range(40)], np.repeat(effects, 5), [1] * 40, signed=True, seed=0
    )
    of_items = estimate_ratio(
        [f"i{i}" for i in range(40)], np.repeat(effects, 5), [1] * 40, signed=True, seed=0
    )
    assert of_groups.effect == pytest.approx(of_items.effect)
    assert of_groups.groups == 8
    assert of_groups.standard_error == pytest.approx(effects.std(ddof=1) / math.sqrt(8))
    assert of_items.standard_error is not None
    assert of_items.standard_error < 0.5 * of_groups.standard_error


def test_percentiles_against_the_sorted_values() -> None:
    values = np.random.default_rng(0).permutation(1001) / 10
    found = percentiles(values, KL_PERCENTILES)
    assert list(found) == list(KL_PERCENTILES)
    assert found["max"] == 100.0
    assert found["99.9"] == pytest.approx(99.9)
    assert found["50"] == pytest.approx(50)
    assert found["0.1"] == pytest.approx(0.1)
    assert found["min"] == 0.0
    assert percentiles(np.array([0.1, 0.2]), ["max"]) == {"max": 0.2}


def test_percentile_names_are_those_of_the_definitions() -> None:
    assert " ".join(KL_PERCENTILES) == "max 99.9 99 95 90 50 10 5 1 0.1 min"
    assert " ".join(DELTA_P_PERCENTILES) == "max 99.9 99 95 90 75 50 25 10 5 1 0.1 min"


def test_percentile_errors() -> None:
    with pytest.raises(InputError, match="Percentiles of no value"):
        percentiles(np.array([]), KL_PERCENTILES)
    with pytest.raises(NumericsError, match="not finite came to percentiles"):
        percentiles(np.array([1.0, np.nan]), KL_PERCENTILES)


def test_no_interval_of_a_divergence_goes_below_what_it_can_be() -> None:
    """Six groups, one of which holds nearly all: bootstrap-t alone goes far below 0."""
    groups, sums = [str(k) for k in range(6)], [0.1, 0.2, 0.1, 0.3, 0.2, 90.0]
    signed = estimate_ratio(groups, sums, [1] * 6, signed=True, seed=0)
    assert signed.low is not None
    assert signed.low < 0
    found = estimate_ratio(groups, sums, [1] * 6, signed=False, seed=0)
    assert found.low == 0
    assert (found.high, found.effect) == (signed.high, signed.effect)
