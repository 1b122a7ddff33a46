"""Are the intervals and p of shares, and the corrections, those that were published?"""

from __future__ import annotations

import math
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunediff.errors import InputError, UsageError
from tunediff.findings.corrections import benjamini_hochberg, holm
from tunediff.findings.estimates import estimate_ratio
from tunediff.findings.intervals import TOO_FEW
from tunediff.findings.proportions import (
    Outcomes,
    above_chance,
    discordant,
    estimate_outcomes,
    groups_for_silence,
    mcnemar_exact,
    more_outcomes,
    outcomes_needed,
    tango_interval,
    wilson_interval,
)

Z = 1.959963984540054


def score_by_likelihood(n: int, b: int, c: int, delta: float) -> float:
    """Rao's score statistic of Δ = p10 − p01, with the likelihood maximised by search.

    Nothing of Tango's algebra: the derivative of the trinomial's log-likelihood at the likeliest
    p01, over the root of its information left after p01 was estimated.
    """
    from scipy.optimize import minimize_scalar

    def minus_log_likelihood(q: float) -> float:
        shares = ((b, q + delta), (c, q), (n - b - c, 1 - 2 * q - delta))
        return -math.fsum(k * math.log(p) for k, p in shares)

    edge = 1e-12
    inside = (max(0.0, -delta) + edge, (1 - delta) / 2 - edge)
    q = minimize_scalar(
        minus_log_likelihood, bounds=inside, method="bounded", options={"xatol": 1e-13}
    ).x
    p, rest = q + delta, 1 - 2 * q - delta
    slope = b / p - (n - b - c) / rest
    both = n * (1 / p + 2 / rest)
    left = n * (1 / p + 1 / rest) - both**2 / (n * (1 / p + 1 / q + 4 / rest))
    return slope / math.sqrt(left)


@pytest.mark.parametrize(
    ("n", "base_only", "tuned_only", "level", "low", "high"),
    [
        # Tango (1998), two ways of disinfecting soft contact lenses: 44 crossed over, one differed.
        (44, 1, 0, 0.90, -0.096, 0.037),
        # Fagerland, Lydersen & Laake (2014), airway responsiveness before and after a transplant.
        (21, 7, 1, 0.95, -0.517, -0.026),
    ],
)
def test_tango_published_examples(
    n: int, base_only: int, tuned_only: int, level: float, low: float, high: float
) -> None:
    found = tango_interval(n, base_only, tuned_only, level=level)
    assert found == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize(("n", "b", "c"), [(21, 1, 7), (50, 12, 2), (1600, 150, 86), (30, 5, 20)])
@pytest.mark.parametrize("level", [0.95, 0.9875])
def test_tango_ends_are_where_the_likelihoods_score_is_z(
    n: int, b: int, c: int, level: float
) -> None:
    z = NormalDist().inv_cdf((1 + level) / 2)
    low, high = tango_interval(n, c, b, level=level)
    assert score_by_likelihood(n, b, c, low) == pytest.approx(z, rel=1e-4)
    assert score_by_likelihood(n, b, c, high) == pytest.approx(-z, rel=1e-4)


def test_tango_at_zero_is_mcnemars_statistic() -> None:
    # Agresti, Categorical Data Analysis: approval of a prime minister, 86 and 150 of 1,600
    # changed their mind; z² = 17.36.
    assert (150 - 86) ** 2 / (150 + 86) == pytest.approx(17.36, abs=0.005)
    for b, c in ((150, 86), (10, 4), (14, 4), (15, 5), (16, 6)):
        low, _ = tango_interval(1600, c, b)
        assert (low > 0) == ((b - c) / math.sqrt(b + c) > Z)


@given(
    n=st.integers(1, 400),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    level=st.sampled_from([0.8, 0.95, 0.9875]),
)
@settings(max_examples=80, deadline=None)
def test_tango_mirrors_contains_and_stays_on_the_scale(
    n: int, shares: tuple[float, float], level: float
) -> None:
    b = int(shares[0] * n)
    c = int(shares[1] * (n - b))
    low, high = tango_interval(n, c, b, level=level)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert tango_interval(n, b, c, level=level) == pytest.approx((-high, -low), abs=1e-12)
    wider = tango_interval(n, c, b, level=0.99)
    assert wider[0] <= low
    assert wider[1] >= high


def test_without_discordant_items_silence_is_no_certainty() -> None:
    assert tango_interval(80, 0, 0) == pytest.approx((-0.04506, 0.04506), abs=1e-5)
    assert tango_interval(80, 0, 0, level=0.9875)[1] == 1 - ((1 - 0.9875) / 2) ** (1 / 80)
    # The rate of discordance at which 80 silent items are still 2.5 % likely.
    assert (1 - tango_interval(80, 0, 0)[1]) ** 80 == pytest.approx(0.025)


@pytest.mark.parametrize("level", [0.95, 0.9875])
@pytest.mark.parametrize("margin", [0.02, 0.1, 0.7])
def test_groups_for_silence_is_the_first_that_fits(level: float, margin: float) -> None:
    n = groups_for_silence(margin, level=level)
    assert tango_interval(n, 0, 0, level=level)[1] < margin
    assert n == 1 or tango_interval(n - 1, 0, 0, level=level)[1] >= margin
    assert groups_for_silence(0.02) == 183


def chance_of(n: int, p10: float, p01: float) -> np.ndarray:
    """The trinomial's probabilities of (b, c), (n + 1, n + 1)."""
    from scipy.stats import binom

    b, c = np.arange(n + 1)[:, None], np.arange(n + 1)[None, :]
    return binom.pmf(b, n, p10) * np.where(
        b + c <= n, binom.pmf(c, np.maximum(n - b, 0), p01 / (1 - p10)), 0
    )


@pytest.mark.parametrize(("n", "kept"), [(30, 0.05), (60, 0.1), (100, 0.05)])
@pytest.mark.parametrize("difference", [0.0, -0.02, 0.1])
def test_tango_covers_by_exact_enumeration(n: int, kept: float, difference: float) -> None:
    p10, p01 = kept + max(difference, 0), kept + max(-difference, 0)
    chances = chance_of(n, p10, p01)
    assert chances.sum() == pytest.approx(1)
    covered = below = 0.0
    for b, c in np.argwhere(chances > 1e-7).tolist():
        low, high = tango_interval(n, c, b)
        covered += chances[b, c] * (low <= difference <= high)
        below += chances[b, c] * (low > difference)
    assert 0.93 < covered
    assert below < 0.03  # the side on which a loss would be called preserved


@pytest.mark.parametrize(
    ("base_only", "tuned_only", "p"),
    [
        (7, 1, 0.070),  # Fagerland, Lydersen & Laake (2013), exact conditional
        (16, 6, 0.0525),  # the same, response before and after consolidation therapy
        (2, 12, 0.0129),  # Armitage & Berry (1994), two media for tuberculosis; Liddell's exact
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 6, 2 / 64),
    ],
)
def test_mcnemar_published_examples(base_only: int, tuned_only: int, p: float) -> None:
    assert mcnemar_exact(base_only, tuned_only) == pytest.approx(p, abs=5e-4)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_mcnemar_equals_the_binomial_test(b: int, c: int) -> None:
    from scipy.stats import binomtest

    wanted = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(wanted, rel=1e-9)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe (1998), single proportion, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published_examples(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_wilson_equals_scipy(n: int, share: float, level: float) -> None:
    from scipy.stats import binomtest

    k = int(share * n)
    wanted = binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson_interval(k, n, level=level) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_above_chance_is_wilsons_lower_end() -> None:
    assert not above_chance(0.30, 80, 0.25)
    assert above_chance(0.40, 80, 0.25)
    assert not above_chance(0.40, 20, 0.25)  # twenty could be luck
    assert above_chance(1.0, 10, 0.25)  # all right, without any spread
    assert not above_chance(0.0, 500, 0.0)
    assert above_chance(1 / 500, 500, 0.0)


def test_one_outcome_a_group_is_tango_and_mcnemar() -> None:
    base = [1.0] * 20 + [0.0] * 12 + [1.0] * 2 + [0.0] * 16
    tuned = [1.0] * 20 + [1.0] * 12 + [0.0] * 2 + [0.0] * 16
    names = [f"item {i}" for i in range(50)]
    found = estimate_outcomes(names, base, tuned, [1] * 50, seed=0)
    assert discordant(base, tuned) == (2, 12)
    assert found.effect == pytest.approx(0.2)
    assert (found.low, found.high) == tango_interval(50, 2, 12)
    assert found.p == mcnemar_exact(2, 12)
    assert (found.groups, found.count, found.note) == (50, 50, "")
    differences = np.array(tuned) - np.array(base)
    assert found.standard_error == pytest.approx(differences.std(ddof=1) / math.sqrt(50))
    wide = estimate_outcomes(names, base, tuned, [1] * 50, seed=0, level=0.99)
    assert (wide.low, wide.high) == tango_interval(50, 2, 12, level=0.99)


def test_samples_or_larger_groups_are_a_ratio_with_sign_flip() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 40).astype(float).tolist()
    tuned = rng.integers(0, 2, 40).astype(float).tolist()
    effects = [t - b for b, t in zip(base, tuned, strict=True)]
    groups = [f"g{i // 4}" for i in range(40)]
    ones = [1] * 40
    wanted = estimate_ratio(groups, effects, ones, signed=True, seed=3)
    assert estimate_outcomes(groups, base, tuned, ones, seed=3) == wanted
    names = [str(i) for i in range(40)]
    threes = [3] * 40  # three samples each, of which so many were right
    wanted = estimate_ratio(names, effects, threes, signed=True, seed=3)
    assert estimate_outcomes(names, base, tuned, threes, seed=3) == wanted
    halves = [b / 2 for b in base]  # no 0/1 outcome
    wanted = estimate_ratio(
        names, [t - b for b, t in zip(halves, tuned, strict=True)], ones, signed=True, seed=3
    )
    assert estimate_outcomes(names, halves, tuned, ones, seed=3) == wanted


def test_outcomes_needed_by_hand() -> None:
    # At the boundary 0 Tango's score is McNemar's: q = (b + c) / 2, σ0² = b + c.
    wanted = ((Z * math.sqrt(0.14) + 0.8416212 * math.sqrt(0.14 - 0.1**2)) / 0.1) ** 2
    assert outcomes_needed(0.02, 0.12, 0.0) == pytest.approx(wanted)
    assert outcomes_needed(0.12, 0.02, 0.0) == pytest.approx(wanted)
    with pytest.raises(UsageError, match="lies on the boundary"):
        outcomes_needed(0.1, 0.1, 0.0)


@pytest.mark.parametrize(
    ("base_only", "tuned_only", "boundary"),
    [
        (0.02, 0.02, -0.02),  # nothing changed: preserved
        (0.05, 0.05, -0.05),
        (0.03, 0.03, -0.10),
        (0.09, 0.02, -0.02),  # a loss beyond the margin: degraded
        (0.27, 0.05, -0.02),
        (0.02, 0.07, 0.0),  # a gain, by McNemar's exact test
        (0.05, 0.25, 0.0),
    ],
)
def test_outcomes_are_decided_in_four_of_five_at_their_n_needed(
    base_only: float, tuned_only: float, boundary: float
) -> None:
    n = math.ceil(outcomes_needed(base_only, tuned_only, boundary))
    shares = [base_only, tuned_only, 1 - base_only - tuned_only]
    tables, times = np.unique(
        np.random.default_rng(n).multinomial(n, shares, size=4_000), axis=0, return_counts=True
    )
    decided = 0
    for (c, b, _), seen in zip(tables.tolist(), times.tolist(), strict=True):
        low, high = tango_interval(n, c, b)
        sure = mcnemar_exact(c, b) < 0.05 if boundary == 0 else not low <= boundary <= high
        decided += seen * sure
    assert decided / 4_000 == pytest.approx(0.80, abs=0.04)


def test_more_outcomes_ranges_over_the_rate_of_discordant_pairs() -> None:
    from scipy.stats import poisson

    base, tuned = [1.0] * 6 + [0.0] * 4 + [1.0] * 90, [0.0] * 6 + [1.0] * 4 + [1.0] * 90
    e = estimate_outcomes([str(i) for i in range(100)], base, tuned, [1] * 100, seed=0)
    assert isinstance(e, Outcomes)
    assert (e.base_only, e.tuned_only) == (6, 4)
    found = more_outcomes(e, -0.1)
    assert found is not None
    needed = outcomes_needed(0.06, 0.04, -0.1)
    rates = (
        found[0] / needed * 10,
        found[1] / needed * 10,
    )  # expected discordant pairs, with 10 seen
    assert poisson.sf(9, rates[0]) == pytest.approx(0.1, abs=0.02)
    assert poisson.cdf(10, rates[1]) == pytest.approx(0.1, abs=0.02)
    assert more_outcomes(e, e.effect + 0.09 * (e.standard_error or 0)) is None
    assert more_outcomes(e, -0.02) is None  # right on it


def test_fewer_than_six_outcomes_have_no_interval() -> None:
    five = estimate_outcomes(list("abcde"), [0.0] * 5, [1.0] * 5, [1] * 5, seed=0)
    assert (five.effect, five.low, five.high, five.note) == (1.0, None, None, TOO_FEW)
    six = estimate_outcomes(list("abcdef"), [0.0] * 6, [1.0] * 6, [1] * 6, seed=0)
    assert six.low == pytest.approx(tango_interval(6, 0, 6)[0])
    one = estimate_outcomes(["a"], [0.0], [1.0], [1], seed=0)
    assert (one.low, one.standard_error) == (None, None)
    with pytest.raises(InputError, match="0 groups, 0 sums and 0 counts came"):
        estimate_outcomes([], [], [], [], seed=0)


def test_shares_refuse_what_has_no_meaning() -> None:
    for n, base_only, tuned_only in ((0, 0, 0), (5, 3, 3), (5, -1, 0)):
        with pytest.raises(InputError, match="discordant ones came"):
            tango_interval(n, base_only, tuned_only)
    for k, n in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(InputError, match="trials came"):
            wilson_interval(k, n)
    with pytest.raises(InputError, match="none is negative"):
        mcnemar_exact(-1, 2)
    with pytest.raises(UsageError, match="A level of 1"):
        tango_interval(5, 1, 1, level=1)
    with pytest.raises(UsageError, match="A margin of 0"):
        groups_for_silence(0)


BENJAMINI_HOCHBERG_1995 = [
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459),
    *(0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0),
]


def test_benjamini_hochberg_published_example() -> None:
    # Their section 4: at .05 the procedure rejects the four smallest of fifteen, Bonferroni three.
    adjusted = benjamini_hochberg(BENJAMINI_HOCHBERG_1995)
    assert [p < 0.05 for p in adjusted] == [True] * 4 + [False] * 11
    assert adjusted[3] == pytest.approx(0.0095 * 15 / 4)
    assert [p < 0.05 for p in holm(BENJAMINI_HOCHBERG_1995)] == [True] * 3 + [False] * 12


def test_holm_by_hand() -> None:
    # .005·4, .01·3, .03·2, then .04·1, which may not fall below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.5, 0.6]) == (1.0, 1.0)
    assert holm([]) == benjamini_hochberg([]) == ()
    assert holm([0.02]) == benjamini_hochberg([0.02]) == (0.02,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_corrections_equal_their_definitions(ps: list[float]) -> None:
    from scipy.stats import false_discovery_control

    # Holm is Bonferroni's closed test: a p counts as its worst among all families that hold it.
    families = [S for size in range(1, len(ps) + 1) for S in combinations(range(len(ps)), size)]
    closed = [
        min(1.0, max(len(S) * min(ps[j] for j in S) for S in families if i in S))
        for i in range(len(ps))
    ]
    assert holm(ps) == pytest.approx(closed, abs=1e-12)
    assert benjamini_hochberg(ps) == pytest.approx(false_discovery_control(ps), abs=1e-12)


@pytest.mark.parametrize("ps", [[-0.1], [1.1], [0.5, math.nan]])
def test_corrections_refuse_what_is_no_p(ps: list[float]) -> None:
    for correct in (holm, benjamini_hochberg):
        with pytest.raises(InputError, match="each must lie between 0 and 1"):
            correct(ps)
