"""How far may a share of right answers have moved, and could chance alone have moved it?

Two models that answer the same items right or wrong differ in the items that only one of them got
right: ``base_only`` and ``tuned_only``. Those that both or neither got right say nothing of which
way the share moved; they count in n alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, log, sqrt
from statistics import NormalDist

from tunediff.errors import InputError, UsageError
from tunediff.findings.estimates import estimate_ratio
from tunediff.findings.intervals import FEWEST_GROUPS, TOO_FEW
from tunediff.findings.planning import HOPELESS, POWER
from tunediff.values import Estimate

_HALVINGS = 60  # of an interval no longer than 2: below the last bit of a float64


@dataclass(frozen=True, slots=True)
class Outcomes(Estimate):
    """An estimate of paired 0/1 outcomes, one a group, with the flips that it comes from."""

    base_only: int = 0
    tuned_only: int = 0


def tango_interval(
    n: int, base_only: int, tuned_only: int, *, level: float = 0.95
) -> tuple[float, float]:
    """Score interval of the paired difference (tuned_only − base_only) / n, by bisection.

    The ends are the Δ at which ``√n·(b − c − Δ) / √(2q + Δ(1 − Δ))`` is ±z, where b and c are the
    shares of ``tuned_only`` and ``base_only``, and q the likeliest c if the difference were Δ: the
    larger root of ``2q² + ((2 − b + c)Δ − b − c)·q − cΔ(1 − Δ) = 0``.

    With no discordant item the ends are ±(1 − (α/2)^(1/n)) in its place, α = 1 − level: the
    largest rate of discordance, all of it one way, under which n such items are still that likely.

    Args:
        n: pairs, at least one.
        base_only: pairs where base alone was right.
        tuned_only: pairs where tuned alone was right.
        level: nominal coverage.

    Raises:
        InputError: no pair, a negative number, or more discordant pairs than pairs.
        UsageError: a level outside (0, 1).

    Source: Tango, Statistics in Medicine 17 (1998) 891-908.

    """
    if n < 1 or base_only < 0 or tuned_only < 0 or base_only + tuned_only > n:
        raise InputError(
            f"{n} pairs with {base_only} and {tuned_only} discordant ones came; at least one pair "
            "is needed, and no more discordant ones than pairs."
        )
    z = _two_sided(level)
    if base_only + tuned_only == 0:
        end = 1 - ((1 - level) / 2) ** (1 / n)
        return -end, end
    difference = (tuned_only - base_only) / n

    def score(delta: float) -> float:
        variance = _variance_at(delta, base_only / n, tuned_only / n)
        distance = difference - delta
        return (
            distance * sqrt(n / variance) if variance > 0 else inf * distance if distance else 0.0
        )

    return (
        _falls_to(score, z, -1.0, difference),
        _falls_to(score, -z, difference, 1.0),
    )


def outcomes_needed(
    base_only: float,
    tuned_only: float,
    boundary: float,
    *,
    level: float = 0.95,
    power: float = POWER,
) -> float:
    """Pairs that decide with that power: n = ((z.975·σ0 + z.80·σ) / (d − boundary))².

    d = ``tuned_only − base_only``; σ² = their sum − d² is the variance of one pair's difference,
    and σ0² what Tango's score takes it for at the boundary. At the boundary 0 McNemar's exact test
    decides, whose steps cost it some 3 points of power.

    Args:
        base_only: the share of pairs where base alone is right.
        tuned_only: the share where tuned alone is.
        boundary: what the difference has to be told from, such as −margin.
        level: of the interval that has to clear it.
        power: the chance that it does.

    Raises:
        UsageError: a difference that lies on the boundary, or a level outside (0, 1).

    Source: Nam, Biometrics 53 (1997) 1422-1430.

    """
    difference = tuned_only - base_only
    if difference == boundary:
        raise UsageError(f"A difference of {difference} came, which lies on the boundary.")
    at_boundary = sqrt(max(0.0, _variance_at(boundary, base_only, tuned_only)))
    spread = sqrt(max(0.0, base_only + tuned_only - difference**2))
    reached = _two_sided(level) * at_boundary + NormalDist().inv_cdf(power) * spread
    return (reached / (difference - boundary)) ** 2


def more_outcomes(
    estimate: Outcomes, boundary: float, *, level: float = 0.95, power: float = POWER
) -> tuple[int, int] | None:
    """How many fresh pairs would settle on which side of the boundary the difference is.

    :func:`outcomes_needed` at the shares that were seen, never below six. It grows with the rate of
    discordant pairs, and the range is that of the rate: their number is about Poisson, and the ends
    take its exact 80 % interval. With no discordant pair: :func:`groups_for_silence`.

    Returns:
        (low, high), or None where more pairs cannot settle it (the distance is below a tenth of
        the standard error, or there is no discordant pair and no margin).

    """
    n, pairs = estimate.groups, estimate.base_only + estimate.tuned_only
    if pairs == 0:
        if not 0 < abs(boundary) < 1:
            return None
        silent = max(FEWEST_GROUPS, groups_for_silence(abs(boundary), level=level))
        return silent, silent
    distance = abs(estimate.effect - boundary)
    if distance <= HOPELESS * (estimate.standard_error or 0.0):
        return None
    from scipy.special import gammaincinv

    needed = outcomes_needed(
        estimate.base_only / n, estimate.tuned_only / n, boundary, level=level, power=power
    )
    rates = gammaincinv(pairs, 0.1) / pairs, gammaincinv(pairs + 1, 0.9) / pairs
    few, many = (max(FEWEST_GROUPS, ceil(needed * rate)) for rate in rates)
    return few, many


def groups_for_silence(margin: float, *, level: float = 0.95) -> int:
    """The fewest pairs, none of them discordant, whose interval lies inside ±margin.

    The smallest n with ``1 − (α/2)^(1/n) < margin``: 183 at a margin of 0.02.

    Raises:
        UsageError: a margin outside (0, 1), or such a level.

    """
    _two_sided(level)
    if not 0 < margin < 1:
        raise UsageError(f"A margin of {margin} came; it must lie between 0 and 1.")
    share = (1 - level) / 2
    n = max(1, ceil(log(share) / log(1 - margin)))
    return n if 1 - share ** (1 / n) < margin else n + 1


def mcnemar_exact(base_only: int, tuned_only: int) -> float:
    """Two-sided p of McNemar's exact test: twice the smaller binomial tail at ½, at most 1.

    Had tuning done nothing, each discordant pair was as likely to fall to either side. No
    discordant pair gives 1.0.

    Raises:
        InputError: a negative number.

    Source: McNemar, Psychometrika 12 (1947); the exact form is the sign test.

    """
    if base_only < 0 or tuned_only < 0:
        raise InputError(f"{base_only} and {tuned_only} discordant pairs came; none is negative.")
    from scipy.special import bdtr

    fewer, pairs = min(base_only, tuned_only), base_only + tuned_only
    return min(1.0, 2 * float(bdtr(fewer, pairs, 0.5)))


def wilson_interval(successes: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a single share: ``(k + z²/2 ± z√(k(n − k)/n + z²/4)) / (n + z²)``.

    Raises:
        InputError: no trial, or successes outside 0 … n.
        UsageError: a level outside (0, 1).

    Source: Wilson, JASA 22 (1927) 209-212.

    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(
            f"{successes} successes in {n} trials came; at least one trial is needed, "
            "and no more successes than trials."
        )
    z = _two_sided(level)
    middle = successes + z**2 / 2
    half = z * sqrt(successes * (n - successes) / n + z**2 / 4)
    # At the ends of the scale the formula is exact, its rounding is not.
    low = 0.0 if successes == 0 else (middle - half) / (n + z**2)
    high = 1.0 if successes == n else (middle + half) / (n + z**2)
    return low, high


def above_chance(share: float, groups: int, chance: float, *, level: float = 0.95) -> bool:
    """Whether base's share of right answers lies above chance: Wilson's lower end, over groups.

    A group counts as one trial, however many outcomes it holds. Where it does not, the verdict is
    ``no_headroom``.

    Raises:
        InputError: no group, or a share outside 0 … 1.
        UsageError: a level outside (0, 1).

    """
    return wilson_interval(share * groups, groups, level=level)[0] > chance


def discordant(base: Sequence[float], tuned: Sequence[float]) -> tuple[int, int]:
    """How many observations base alone, and how many tuned alone, got right: flips either way."""
    pairs = list(zip(base, tuned, strict=True))
    return sum(b > t for b, t in pairs), sum(t > b for b, t in pairs)


def estimate_outcomes(
    groups: Sequence[str],
    base: Sequence[float],
    tuned: Sequence[float],
    counts: Sequence[int],
    *,
    seed: int,
    level: float = 0.95,
) -> Estimate:
    """Estimate the difference tuned − base in the share of a 0/1 outcome.

    One observation a group, each 0 or 1 on either side: :class:`Outcomes`, with Tango's interval
    and McNemar's exact p; the standard error is that of a mean of differences. With samples or
    larger groups: the ratio Σ(tuned − base) / Σ counts over groups, bootstrap-t and sign-flip
    (:func:`tunediff.findings.estimates.estimate_ratio`). Fewer than six groups: no interval.

    Args:
        groups: the group of each observation.
        base: Σ of base's outcomes in each observation.
        tuned: Σ of tuned's.
        counts: how many outcomes each observation holds.
        seed: of the resampling, where there is any.
        level: nominal coverage.

    Raises:
        InputError: no observation, or lists of different lengths.
        NumericsError: a sum that is not finite.

    """
    effects = [t - b for b, t in zip(base, tuned, strict=True)]
    n = len(effects)
    outcomes = {0, 1}.issuperset(base) and {0, 1}.issuperset(tuned)
    single = n > 0 and len(set(groups)) == len(groups) == n and set(counts) == {1}
    if not (outcomes and single):
        return estimate_ratio(groups, effects, counts, signed=True, seed=seed, level=level)
    base_only, tuned_only = discordant(base, tuned)
    low, high = tango_interval(n, base_only, tuned_only, level=level)
    enough = n >= FEWEST_GROUPS
    squares = base_only + tuned_only - (tuned_only - base_only) ** 2 / n  # Σ(d − mean)²
    return Outcomes(
        effect=(tuned_only - base_only) / n,
        low=low if enough else None,
        high=high if enough else None,
        p=mcnemar_exact(base_only, tuned_only),
        groups=n,
        count=n,
        standard_error=sqrt(squares / (n * (n - 1))) if n > 1 else None,
        note="" if enough else TOO_FEW,
        base_only=base_only,
        tuned_only=tuned_only,
    )


def _variance_at(delta: float, base_only: float, tuned_only: float) -> float:
    """A pair's variance were the difference Δ, at the shares seen: 2q + Δ(1 − Δ), Tango's q."""
    half = ((2 - tuned_only + base_only) * delta - tuned_only - base_only) / 2
    q = (sqrt(max(0.0, half**2 + 2 * base_only * delta * (1 - delta))) - half) / 2
    return 2 * q + delta * (1 - delta)


def _falls_to(score: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a falling function passes a value, between ``low`` and ``high``."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > value else (low, middle)
    return (low + high) / 2


def _two_sided(level: float) -> float:
    """The normal quantile z with a probability of ``level`` between −z and z."""
    if not 0 < level < 1:
        raise UsageError(f"A level of {level} came; it must lie between 0 and 1.")
    return NormalDist().inv_cdf((1 + level) / 2)
