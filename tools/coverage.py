"""Do the intervals cover, do the verdicts keep their promises? A seeded simulation.

``python tools/coverage.py`` runs it (minutes) and rewrites the tables between the markers of
``docs/statistics.md``; ``--quick`` takes few simulations and prints them, for a look or a test.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np

from tunediff.findings.check import check_verdict
from tunediff.findings.decide import PRESERVED, Question, judge, judge_axes
from tunediff.findings.intervals import ratio_interval
from tunediff.findings.permutation import sign_flip
from tunediff.findings.planning import POWER, small_sample
from tunediff.findings.proportions import estimate_outcomes
from tunediff.values import Estimate

SEED = 20_261
SIMULATIONS = 4_000
RESAMPLES = 1_999  # the product takes 9,999; here thousands of intervals are made
GROUPS = (6, 10, 30, 100, 300)
START, END = "<!-- coverage:start -->", "<!-- coverage:end -->"
DOCS = Path(__file__).resolve().parent.parent / "docs" / "statistics.md"

TEXTS, TOKENS, SHARED = 30, 100, 0.084  # of the planted fault: tokens taken as items
MARGIN = 0.02  # nats/token, that of an axis

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class World:
    """Groups drawn so that the true Σs / Σn is 0; ``sd`` is that of √G · (θ̂ − θ) as G grows."""

    name: str
    draw: Draw  # (rng, G) → sums (G,), counts (G,)
    sd: float


def normal(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw normal effects."""
    return rng.standard_normal(groups), np.ones(groups)


def grouped(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one to five items a group, half of whose variance the group shares."""
    items = rng.integers(1, 6, groups).astype(np.float64)
    of_group, of_items = rng.standard_normal((2, groups))
    return items * sqrt(0.5) * of_group + np.sqrt(0.5 * items) * of_items, items


def lognormal(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw effects e^Z less their mean: a long tail of texts that got worse."""
    return np.exp(rng.standard_normal(groups)) - exp(0.5), np.ones(groups)


def lognormal_gain(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Mirror :func:`lognormal`: a long tail of texts that got better."""
    sums, counts = lognormal(rng, groups)
    return -sums, counts


def token_weighted(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw token counts n = e^(5 + 0.8·Z) and effects a token that correlate with Z by 0.6.

    E[n·effect] / E[n] = 0.6 · 0.8, which is taken off.
    """
    z, other = rng.standard_normal((2, groups))
    counts = np.maximum(1, np.round(np.exp(5 + 0.8 * z)))
    return counts * (0.6 * z + 0.8 * other - 0.6 * 0.8), counts


def _asymptotic_sd(draw: Draw) -> float:
    sums, counts = draw(np.random.default_rng(0), 2_000_000)
    return float(np.sqrt(np.mean((sums - sums.sum() / counts.sum() * counts) ** 2)) / counts.mean())


def worlds() -> tuple[World, ...]:
    """Every distribution that the tables have a row for."""
    skewed = sqrt((exp(1) - 1) * exp(1))
    return (
        World("normal", normal, 1.0),
        World("normal, items correlated inside groups", grouped, _asymptotic_sd(grouped)),
        World("lognormal, long tail of harm", lognormal, skewed),
        World("lognormal, long tail of gain", lognormal_gain, skewed),
        World("token-weighted ratio", token_weighted, _asymptotic_sd(token_weighted)),
    )


def verdict(sums: np.ndarray, counts: np.ndarray, seed: int) -> tuple[str, Estimate]:
    """The verdict of ``check`` on these groups as ΔNLL, with KL above its floor."""
    interval = ratio_interval(sums, counts, seed=seed, resamples=RESAMPLES)
    below = interval.high is not None and interval.high < 0  # p matters nowhere else
    estimate = Estimate(
        effect=float(sums.sum() / counts.sum()),
        low=interval.low,
        high=interval.high,
        p=sign_flip(sums, seed=seed) if below else 1.0,
        groups=sums.size,
        count=int(counts.sum()),
        standard_error=interval.standard_error,
        note=interval.note,
    )
    decided = check_verdict(
        weights_equal=False,
        scored=True,
        delta_nll=estimate,
        kl=1.0,
        mse_centred=1.0,
        kl_floor=1e-9,
        mse_centred_floor=1e-9,
        texts=sums.size,
        point=None,
        mse_threshold=None,
        ppl_threshold=None,
    )
    return decided.code, estimate


def shares(
    world: World, groups: int, shift: float, simulations: int, seed: int
) -> dict[str, float]:
    """How often, with the true figure at ``shift``: it was covered, and each verdict was given."""
    rng = np.random.default_rng([seed, groups])
    seen = dict.fromkeys(
        ("covered", "no interval", "tuned", "diverged_without_gain", "preserved"), 0
    )
    for simulation in range(simulations):
        sums, counts = world.draw(rng, groups)
        code, estimate = verdict(sums + shift * counts, counts, simulation)
        if code in seen:
            seen[code] += 1
        if estimate.low is None or estimate.high is None:
            seen["no interval"] += 1
            continue
        at_margin = replace(  # a constant added to every effect moves the interval by as much
            estimate,
            effect=estimate.effect - shift + MARGIN,
            low=estimate.low - shift + MARGIN,
            high=estimate.high - shift + MARGIN,
        )
        kept = judge(at_margin, direction=-1, margin=MARGIN, adjusted_p=1.0)
        seen["preserved"] += kept.code in PRESERVED
        seen["covered"] += estimate.low <= shift <= estimate.high
    with_interval = simulations - seen.pop("no interval")
    covered = seen.pop("covered") / max(1, with_interval)
    return {
        "covered": covered,
        "no interval": 1 - with_interval / simulations,
        **{code: times / simulations for code, times in seen.items()},
    }


def token_coverage(simulations: int, seed: int) -> tuple[float, float]:
    """Coverage with texts resampled, and with their tokens resampled as if independent."""
    rng = np.random.default_rng(seed)
    covered = np.zeros(2)
    for simulation in range(simulations):
        text = rng.standard_normal((TEXTS, 1)) * sqrt(SHARED)
        tokens = text + rng.standard_normal((TEXTS, TOKENS)) * sqrt(1 - SHARED)
        of_texts = ratio_interval(
            tokens.sum(axis=1), np.full(TEXTS, TOKENS), seed=simulation, resamples=RESAMPLES
        )
        of_tokens = ratio_interval(
            tokens.ravel(), np.ones(tokens.size), seed=simulation, resamples=RESAMPLES
        )
        for i, interval in enumerate((of_texts, of_tokens)):
            assert interval.low is not None
            assert interval.high is not None
            covered[i] += interval.low <= 0 <= interval.high
    return float(covered[0] / simulations), float(covered[1] / simulations)


def alarms(simulations: int, seed: int) -> dict[str, float]:
    """How often a scorecard of four axes, of models that do not differ, calls an axis changed.

    Base and tuned could be swapped: every effect is as likely with the other sign.
    """
    rng = np.random.default_rng([seed, 4])
    seen = dict.fromkeys(("better", "degraded", "either", "uncorrected"), 0)
    for simulation in range(simulations):
        counts = np.maximum(1, np.round(np.exp(3 + 0.7 * rng.standard_normal(40))))
        tokens = counts * 0.3 * rng.standard_normal(40), counts
        tails = 0.2 * rng.standard_t(4, 60), np.ones(60)
        few = 0.1 * rng.standard_normal(12), np.ones(12)
        right = (rng.random((2, 100)) < rng.random(100)).astype(np.float64).tolist()
        questions = {
            "target": _question(tokens, simulation),
            "general": _question(tails, simulation),
            "safety": Question(_outcomes(right), 1, MARGIN),
            "fluency": _question(few, simulation),
        }
        codes = {v.code for v in judge_axes(questions).verdicts.values()}
        alone = {judge_axes({axis: q}).verdicts[axis].code for axis, q in questions.items()}
        for code in ("better", "degraded"):
            seen[code] += code in codes
        seen["either"] += not codes.isdisjoint(("better", "degraded"))
        seen["uncorrected"] += not alone.isdisjoint(("better", "degraded"))
    return {code: times / simulations for code, times in seen.items()}


def _question(groups: tuple[np.ndarray, np.ndarray], seed: int) -> Question:
    sums, counts = groups
    p = sign_flip(sums, seed=seed, resamples=RESAMPLES)

    def estimate(level: float) -> Estimate:
        found = ratio_interval(sums, counts, seed=seed, level=level, resamples=RESAMPLES)
        effect, n = float(sums.sum() / counts.sum()), int(counts.sum())
        return Estimate(
            effect, found.low, found.high, p, sums.size, n, found.standard_error, found.note
        )

    return Question(estimate, -1, MARGIN)


def _outcomes(right: list[list[float]]) -> Callable[[float], Estimate]:
    names, ones = [str(i) for i in range(len(right[0]))], [1] * len(right[0])
    return lambda level: estimate_outcomes(names, right[0], right[1], ones, seed=0, level=level)


def tables(simulations: int, seed: int, groups: tuple[int, ...] = GROUPS) -> str:
    """The Markdown that goes between the markers."""
    every = worlds()
    at_zero = {(w.name, G): shares(w, G, 0.0, simulations, seed) for w in every for G in groups}
    # The truth lies where groups_needed says that G groups decide with a power of 80 %.
    z = NormalDist().inv_cdf
    away = {
        (w.name, G): (z(0.975) + z(POWER)) * w.sd / sqrt(G - small_sample())
        for w in every
        for G in groups
    }
    gain = {
        (w.name, G): shares(w, G, -away[w.name, G], simulations, seed + 1)
        for w in every
        for G in groups
    }
    no_gain = {
        (w.name, G): shares(w, G, -0.01 + away[w.name, G], simulations, seed + 2)
        for w in every
        for G in groups
    }
    by_text, by_token = token_coverage(max(1, simulations // 10), seed)
    scorecards = max(1, simulations // 2)
    called = {code: f"{100 * share:.1f} %" for code, share in alarms(scorecards, seed).items()}

    def table(title: str, cells: dict[tuple[str, int], dict[str, float]], what: str) -> str:
        head = f"| {title} | " + " | ".join(f"{G} groups" for G in groups) + " |"
        rule = "|---|" + "---|" * len(groups)
        rows = [
            f"| {w.name} | "
            + " | ".join(f"{100 * cells[w.name, G][what]:.1f} %" for G in groups)
            + " |"
            for w in every
        ]
        return "\n".join([head, rule, *rows])

    error = 100 * sqrt(0.95 * 0.05 / simulations)
    return f"""
{simulations:,} simulations a cell, seed {seed}, {RESAMPLES:,} resamples an interval (the product
takes 9,999). The simulation's own standard error is {error:.1f} points at 95 %, and
{100 * sqrt(0.8 * 0.2 / simulations):.1f} at 80 %. Lognormal: σ = 1. Token-weighted: counts
e^(5 + 0.8·Z), the effect a token correlated with Z by 0.6. Items inside groups: one to five, half
of their variance the group's.

**Coverage** of the 95 % interval.

{table("effects", at_zero, "covered")}

**False *preserved*:** the verdict that nothing was lost, where ΔNLL truly lies at the margin.

{table("effects", at_zero, "preserved")}

**False alarms:** the verdict `tuned` where the true ΔNLL is 0.

{table("effects", at_zero, "tuned")}

**Power at n_needed, for `tuned`:** the true ΔNLL is a gain so large that the formula asks for just
these groups.

{table("effects", gain, "tuned")}

**Power at n_needed, for `diverged_without_gain`:** the true ΔNLL lies as far above −0.01.

{table("effects", no_gain, "diverged_without_gain")}

**A scorecard of four axes where nothing changed** (40 texts of unequal length, 60 heavy-tailed
effects, 100 right-or-wrong answers, 12 normal effects; margin {MARGIN} each; {scorecards:,}
simulations): some axis is called `better` in {called["better"]} of cases, some `degraded` in
{called["degraded"]}, either in {called["either"]}. Without Holm and with intervals of 95 % it would
be {called["uncorrected"]}.

**Tokens taken as items** (what tunediff does not do): {TEXTS} texts of {TOKENS} tokens,
{100 * SHARED:.1f} % of the variance shared within a text. {max(1, simulations // 10):,}
simulations: resampling texts covers {100 * by_text:.1f} %,
resampling tokens {100 * by_token:.1f} %.
"""


def rewritten(page: str, found: str) -> str:
    """The page with ``found`` between its markers."""
    before, rest = page.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{found}\n{END}{after}"


def main(arguments: list[str] | None = None) -> None:
    """Run the simulation, and rewrite the docs' tables unless it was a quick one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few simulations, printed, not kept")
    if parser.parse_args(arguments).quick:
        print(tables(20, SEED, (6, 30)))
        return
    found = tables(SIMULATIONS, SEED)
    DOCS.write_text(rewritten(DOCS.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
