"""How many more items would settle it?"""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist
from typing import Literal

from tunediff.errors import UsageError
from tunediff.findings.intervals import FEWEST_GROUPS
from tunediff.values import Estimate

POWER = 0.80
HOPELESS = 0.1
"""A distance below this many standard errors cannot be settled by more items: that would take
784 times as many groups as there are, and the distance itself is unknown by ten times its size."""

_RANGE = 0.80  # coverage of the chi-square range of the standard error

Means = Literal["interval", "sign-flip"]
"""What decides: an end of the bootstrap-t interval, or the sign-flip test's p."""

_SMALL_SAMPLE = {"interval": 0.85, "sign-flip": 0.5}
"""Groups that a spread not known beforehand costs, in units of z². One half is Guenther's term
for a t test; the bootstrap-t interval, which learns the skew too, costs the rest (simulated:
docs/statistics.md)."""


def groups_needed(
    standard_error: float,
    groups: int,
    distance: float,
    *,
    level: float = 0.95,
    power: float = POWER,
    means: Means = "interval",
) -> float:
    """Groups that decide with that power: n = ((z.975 + z.80) · se · √G / distance)² + k·z.975².

    The first term takes the spread as known. The second, which matters below about fifty groups,
    pays for having to estimate it: k = 0.85 for the interval, 0.5 for the sign-flip test.

    Args:
        standard_error: of the figure over ``groups`` groups, so that se·√G is one group's share.
        groups: G.
        distance: from the true figure to the boundary that decides, in the figure's unit.
        level: of the interval that has to clear the boundary.
        power: the chance that it does.
        means: what decides.

    Raises:
        UsageError: a standard error or distance that is not positive.

    Source: Guenther, The American Statistician 35 (1981) 243-244, for z²/2.

    """
    if standard_error <= 0 or distance <= 0:
        raise UsageError(
            f"A standard error of {standard_error} and a distance of {distance} came; "
            "both must be positive to say how many groups are needed."
        )
    z = NormalDist().inv_cdf
    known = ((z((1 + level) / 2) + z(power)) * standard_error * sqrt(groups) / distance) ** 2
    return known + small_sample(level=level, means=means)


def small_sample(*, level: float = 0.95, means: Means = "interval") -> float:
    """The second term of :func:`groups_needed`: what it costs that the spread is not known."""
    return _SMALL_SAMPLE[means] * NormalDist().inv_cdf((1 + level) / 2) ** 2


def more_groups(
    estimate: Estimate, boundary: float, *, level: float = 0.95, power: float = POWER
) -> tuple[int, int] | None:
    """How many fresh groups, judged on their own, would settle on which side of it the figure is.

    :func:`groups_needed` at the distance |effect − boundary|, never below the six that an interval
    needs. The range is that of the standard error alone: (G−1)·se²/σ² follows a chi-square with
    G−1 degrees of freedom, and the ends take its 90th and 10th percentile, so that σ² lies between
    them 80 % of the time (for effects that are about normal). The distance is taken as it was
    measured; where the true one is half of it, four times as many are needed.

    Fresh, because adding to items that were already looked at and testing them all again raises
    the rate of false alarms.

    Returns:
        (low, high), or None where more items cannot settle it (the distance is below a tenth of
        the standard error) or where nothing is known of the spread (no standard error, or 0).

    """
    se, G = estimate.standard_error, estimate.groups
    if se is None or se <= 0 or G < 2:
        return None
    distance = abs(estimate.effect - boundary)
    if distance < HOPELESS * se:
        return None
    from scipy.special import gammaincinv

    extra = small_sample(level=level)
    known = groups_needed(se, G, distance, level=level, power=power) - extra
    half = (G - 1) / 2
    few, many = (half / gammaincinv(half, q) for q in ((1 + _RANGE) / 2, (1 - _RANGE) / 2))
    return max(FEWEST_GROUPS, ceil(known * few + extra)), max(
        FEWEST_GROUPS, ceil(known * many + extra)
    )
