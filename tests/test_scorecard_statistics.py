"""Do the scorecard's verdicts keep their promises, in thousands of simulated comparisons?

Seeded, so that a failure is one of the code and not of luck. The quick simulations take 999
resamples an interval, or 1,599 where its level is higher; the long ones go through the product's
own estimates with their 9,999.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import exp, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from tunediff.findings.decide import PRESERVED, Question, judge, judge_axes
from tunediff.findings.estimates import estimate_ratio
from tunediff.findings.intervals import ratio_interval
from tunediff.findings.permutation import sign_flip
from tunediff.findings.planning import Means, small_sample
from tunediff.findings.proportions import estimate_outcomes
from tunediff.findings.scorecard import scorecard
from tunediff.values import Estimate, Row

ITEMS, SHARED = 3, 0.5  # of a group: how many, and how much of their variance they share
SD = sqrt(SHARED + (1 - SHARED) / ITEMS)  # of a group's mean
MARGIN = 0.02
RUNS = {10: 2_000, 30: 2_000, 100: 1_000, 300: 500}  # simulations, by groups

Groups = tuple[np.ndarray, np.ndarray]  # sums and counts, (G,) each
Draw = Callable[[np.random.Generator, int], Groups]


def normal(rng: np.random.Generator, groups: int) -> Groups:
    """Items that correlate inside their group, of variance 1 and mean 0."""
    of_group = sqrt(SHARED) * rng.standard_normal((groups, 1))
    items = of_group + sqrt(1 - SHARED) * rng.standard_normal((groups, ITEMS))
    return items.sum(axis=1), np.full(groups, float(ITEMS))


def lognormal(rng: np.random.Generator, groups: int) -> Groups:
    """Groups with a long tail, and the noise of their items on top."""
    of_group = np.exp(rng.standard_normal((groups, 1))) - exp(0.5)
    items = of_group + sqrt(1 - SHARED) * rng.standard_normal((groups, ITEMS))
    return items.sum(axis=1), np.full(groups, float(ITEMS))


def estimated(
    groups: Groups, seed: int, level: float = 0.95, resamples: int = 999, p: float | None = None
) -> Estimate:
    """What ``estimate_ratio`` makes of the groups, with fewer resamples; p where it is known."""
    s, n = groups
    interval = ratio_interval(s, n, seed=seed, level=level, resamples=resamples)
    return Estimate(
        effect=float(s.sum() / n.sum()),
        low=interval.low,
        high=interval.high,
        p=sign_flip(s, seed=seed, resamples=resamples) if p is None else p,
        groups=s.size,
        count=int(n.sum()),
        standard_error=interval.standard_error,
        note=interval.note,
    )


def moved(draw: Draw, groups: int, by: float, simulations: int) -> Iterator[tuple[int, Groups]]:
    rng = np.random.default_rng([groups, simulations])
    for simulation in range(simulations):
        s, n = draw(rng, groups)
        yield simulation, (s + by * n, n)


def coverage(draw: Draw, groups: int, simulations: int) -> float:
    covered = 0
    for seed, drawn in moved(draw, groups, 0.0, simulations):
        found = ratio_interval(*drawn, seed=seed, resamples=999)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    return covered / simulations


def most_hits(simulations: int, rate: float) -> int:
    """More hits than this are not consistent with the rate: fewer than 2.5 % of runs have them."""
    from scipy.stats import binom

    return int(binom.isf(0.025, simulations, rate))


@pytest.mark.parametrize("groups", [10, 30, 100, 300])
def test_normal_effects_are_covered(groups: int) -> None:
    assert coverage(normal, groups, RUNS[groups]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("groups", [10, 30, 100, 300])
def test_lognormal_effects_are_covered_nearly(groups: int) -> None:
    assert 0.88 <= coverage(lognormal, groups, RUNS[groups]) <= 0.97


def test_items_taken_as_groups_would_not_be_covered() -> None:
    # The planted fault: the same items, each as if it were independent of its group's others.
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(500):
        of_group = sqrt(0.9) * rng.standard_normal((30, 1))
        items = (of_group + sqrt(0.1) * rng.standard_normal((30, 8))).ravel()
        found = ratio_interval(items, np.ones(items.size), seed=seed, resamples=399)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert covered / 500 < 0.70


def found_at(groups: int, means: Means, level: float = 0.95, power: float = 0.80) -> float:
    """The distance to a boundary at which just so many groups are needed."""
    z = NormalDist().inv_cdf
    reached = z((1 + level) / 2) + z(power)
    return reached * SD / sqrt(groups - small_sample(level=level, means=means))


@pytest.mark.parametrize("groups", [10, 30, 100, 300])
@pytest.mark.parametrize("code", ["better", "degraded", "preserved"])
def test_an_effect_is_found_in_four_of_five_at_its_n_needed(groups: int, code: str) -> None:
    distance = found_at(groups, "sign-flip" if code == "better" else "interval")
    truth = {"better": distance, "degraded": -MARGIN - distance, "preserved": distance - MARGIN}
    simulations = RUNS[groups]
    found = 0
    for seed, drawn in moved(normal, groups, truth[code], simulations):
        e = estimated(drawn, seed, p=None if code == "better" else 1.0)
        margin = 0.0 if code == "better" else MARGIN
        verdict = judge(e, direction=1, margin=margin, adjusted_p=e.p, unit="nats/token")
        found += verdict.code in (PRESERVED if code == "preserved" else (code,))
    assert found / simulations == pytest.approx(0.80, abs=0.04)


@pytest.mark.parametrize("groups", [10, 30])
def test_no_change_is_the_same_in_four_of_five_where_both_ends_have_to_be_cleared(
    groups: int,
) -> None:
    margin = found_at(groups, "interval", power=0.90)  # what judge asks of either end
    found = 0
    for seed, drawn in moved(normal, groups, 0.0, 2_000):
        e = estimated(drawn, seed, p=1.0)
        found += judge(e, direction=0, margin=margin, adjusted_p=1.0).code == "same"
    assert found / 2_000 == pytest.approx(0.80, abs=0.04)


@pytest.mark.parametrize("groups", [12, 40])
def test_four_of_five_holds_where_four_axes_share_five_percent(groups: int) -> None:
    level = 1 - 0.05 / 4
    truth = -MARGIN - found_at(groups, "interval", level)
    found = 0
    for seed, drawn in moved(normal, groups, truth, 1_500):
        e = estimated(drawn, seed, level, resamples=1_599, p=1.0)
        verdict = judge(e, direction=1, margin=MARGIN, adjusted_p=1.0, level=level)
        found += verdict.code == "degraded"
    assert found / 1_500 == pytest.approx(0.80, abs=0.04)


@pytest.mark.parametrize("groups", [10, 30, 100, 300])
def test_at_the_margin_preserved_is_rarely_said(groups: int) -> None:
    simulations = RUNS[groups]
    said = 0
    for seed, drawn in moved(normal, groups, -MARGIN, simulations):
        e = estimated(drawn, seed, p=1.0)
        said += judge(e, direction=1, margin=MARGIN, adjusted_p=1.0).code in PRESERVED
    assert said <= most_hits(simulations, 0.025)


@pytest.mark.parametrize(("n", "gained"), [(60, 0.05), (120, 0.05), (200, 0.02)])
def test_at_the_margin_right_answers_are_rarely_called_preserved(n: int, gained: float) -> None:
    margin = 0.05
    rng = np.random.default_rng(n)

    @cache
    def verdict(base_only: int, tuned_only: int) -> str:
        both = n - base_only - tuned_only
        base = [1.0] * base_only + [0.0] * tuned_only + [1.0] * both
        tuned = [0.0] * base_only + [1.0] * tuned_only + [1.0] * both
        e = estimate_outcomes([str(i) for i in range(n)], base, tuned, [1] * n, seed=0)
        return judge(e, direction=1, margin=margin, adjusted_p=e.p).code

    shares = [gained + margin, gained, 1 - 2 * gained - margin]
    drawn = rng.multinomial(n, shares, size=4_000).tolist()
    said = sum(verdict(b, t) in PRESERVED for b, t, _ in drawn)
    assert said <= most_hits(4_000, 0.025)


# What four axes look like where tuning did nothing: base and tuned could be swapped, so that every
# effect is as likely with the other sign. In units in which the margin of 0.02 is small.


def tokens(rng: np.random.Generator) -> Groups:
    """Texts of very different lengths."""
    counts = np.maximum(1, np.round(np.exp(3 + 0.7 * rng.standard_normal(40))))
    return counts * 0.3 * rng.standard_normal(40), counts


def heavy(rng: np.random.Generator) -> Groups:
    """Log-probabilities with tails heavier than normal ones, some items in groups."""
    items = rng.integers(1, 4, 30).astype(float)
    return items * 0.2 * rng.standard_t(4, 30), items


def bounded(rng: np.random.Generator) -> Groups:
    """Differences of two probabilities, most of them near 0."""
    base, tuned = rng.beta(0.5, 3, (2, 36))
    return tuned - base, np.ones(36)


def repetition(rng: np.random.Generator) -> Groups:
    """Shares of repeated text: equal in most replies."""
    differs = rng.random(40) < 0.5
    return np.where(differs, 0.4 * (rng.random(40) - 0.5), 0.0), np.ones(40)


def no_change(rng: np.random.Generator, seed: int, margin: float) -> dict[str, Question]:
    """A scorecard of four axes whose models do not differ."""

    def question(drawn: Groups, direction: int) -> Question:
        p = sign_flip(drawn[0], seed=seed, resamples=1_599)
        return Question(
            lambda level: estimated(drawn, seed, level, 1_599, p),
            1 if direction > 0 else -1,
            margin,
        )

    return {
        "target": question(tokens(rng), -1),
        "general": question(heavy(rng), 1),
        "safety": question(bounded(rng), -1),
        "fluency": question(repetition(rng), -1),
    }


def right_or_wrong(rng: np.random.Generator, seed: int, margin: float) -> dict[str, Question]:
    """The same for a pair without log-probabilities: three axes of 0/1 outcomes."""

    def question(n: int, samples: int) -> Question:
        names = [str(i // samples) for i in range(n)]
        easy = rng.random(len(set(names)))[np.arange(n) // samples]
        base, tuned = ((rng.random(n) < easy).astype(float).tolist() for _ in range(2))
        effects = np.array(tuned) - np.array(base)
        if samples == 1:
            return Question(
                lambda level: estimate_outcomes(
                    names, base, tuned, [1] * n, seed=seed, level=level
                ),
                1,
                margin,
            )
        drawn = (effects.reshape(-1, samples).sum(axis=1), np.full(n // samples, float(samples)))
        p = sign_flip(drawn[0], seed=seed, resamples=1_599)
        return Question(lambda level: estimated(drawn, seed, level, 1_599, p), 1, margin)

    return {"target": question(60, 1), "general": question(100, 1), "safety": question(120, 4)}


@pytest.mark.parametrize("axes", [no_change, right_or_wrong])
@pytest.mark.parametrize("margin", [0.0, MARGIN])
def test_a_scorecard_of_no_change_raises_few_alarms(
    axes: Callable[..., dict[str, Question]], margin: float
) -> None:
    rng = np.random.default_rng(7)
    alarms = 0
    for seed in range(1_000):
        found = judge_axes(axes(rng, seed, margin))
        alarms += any(v.code in ("better", "degraded") for v in found.verdicts.values())
    assert alarms <= most_hits(1_000, 0.05)


def test_without_correction_the_scorecard_would_cry_wolf() -> None:
    # The planted fault: each axis judged as if it were the only one.
    rng = np.random.default_rng(7)
    alarms = 0
    for seed in range(300):
        alone = (judge_axes({axis: q}) for axis, q in no_change(rng, seed, 0.0).items())
        codes = [v.code for found in alone for v in found.verdicts.values()]
        alarms += any(code in ("better", "degraded") for code in codes)
    assert alarms > most_hits(300, 0.05)


MOVABLE = {  # measures without a margin, and so with nothing to be inside of: unit, direction
    **dict.fromkeys(("words", "tokens"), ("words", 0)),
    **dict.fromkeys(("specificity", "specificity_numbers", "specificity_names"), ("per word", 0)),
    **dict.fromkeys(("nll_of_base_reply", "nll_of_tuned_reply"), ("nats/token", 0)),
    **dict.fromkeys(("longest_repeated_span", "delta_p"), ("words", -1)),
}


@dataclass
class NoChange:
    """A run of models that could be swapped: measures without a margin, and two axes with one."""

    seed: int
    folder: None = None

    def rows(self) -> list[Row]:
        rng = np.random.default_rng([3, self.seed])
        asked = [("nll", "target"), ("nll", "general"), *((name, "target") for name in MOVABLE)]
        return [
            Row("v", name, axis, axis, f"i{k}", f"i{k}", 0, 0.0, float(e), float(e), 1, None)
            for name, axis in asked
            for k, e in enumerate(rng.standard_t(4, 30))
        ]

    def items(self) -> list[Any]:
        return []

    timing = items

    def ratings(self) -> None:
        return None

    @property
    def record(self) -> dict[str, Any]:
        stated = {"nll": ("nats/token", -1, 0.02)} | {n: (*m, None) for n, m in MOVABLE.items()}
        sides = {"fingerprint": "", "kind": "full"}
        return {
            "identity": {
                **{"variant": "v", "form": "raw", "seed": self.seed, "samples": 1},
                **{"max_length": None, "generation": None, "settings": {}},
                **{"base": sides, "tuned": sides},
                "measures": {
                    name: {"unit": unit, "direction": direction, "margin": margin, "pool": "mean"}
                    for name, (unit, direction, margin) in stated.items()
                },
            },
            "found": {
                "paths": {"base": "", "tuned": ""},
                "certificate": {"weights_equal": False},
                **{"noise_floor": {}, "settings": {}, "truncated": {}},
            },
        }


def test_the_scorecard_itself_of_no_change_claims_little() -> None:
    cards = 60
    movements = alarms = lone = 0
    for seed in range(cards):
        run: Any = NoChange(seed)
        (variant,) = scorecard([run])["variants"]
        own = [variant["measures"]["target"][name] for name in MOVABLE]
        movements += any(m["verdict"] in ("shifted", "degraded", "better") for m in own)
        lone += any(m["low"] > 0 or m["high"] < 0 for m in own)  # each as if it were alone
        alarms += any(a["verdict"] in ("better", "degraded") for a in variant["axes"].values())
    assert movements <= most_hits(cards, 0.05)
    assert alarms <= most_hits(cards, 0.05)
    assert lone > cards / 4  # the planted fault: without a correction it would cry wolf


@pytest.mark.long
@pytest.mark.parametrize("groups", [10, 30, 100, 300])
def test_the_products_own_estimates_keep_the_promises(groups: int) -> None:
    simulations = 2_000
    names = [f"{i // ITEMS:03d}" for i in range(ITEMS * groups)]
    ones = [1] * len(names)
    distance = found_at(groups, "interval")
    covered = degraded = preserved = 0
    rng = np.random.default_rng(groups)
    for seed in range(simulations):
        of_group = sqrt(SHARED) * rng.standard_normal((groups, 1))
        items = (of_group + sqrt(1 - SHARED) * rng.standard_normal((groups, ITEMS))).ravel()
        e = estimate_ratio(names, (items - MARGIN).tolist(), ones, signed=True, seed=seed)
        assert e.low is not None
        assert e.high is not None
        covered += e.low <= -MARGIN <= e.high
        preserved += judge(e, direction=1, margin=MARGIN, adjusted_p=e.p).code in PRESERVED
        # A constant added to every effect moves the interval by as much.
        worse = replace(e, low=e.low - distance, high=e.high - distance)
        degraded += judge(worse, direction=1, margin=MARGIN, adjusted_p=1.0).code == "degraded"
    assert covered / simulations == pytest.approx(0.95, abs=0.02)
    assert preserved <= most_hits(simulations, 0.025)
    assert degraded / simulations == pytest.approx(0.80, abs=0.04)
