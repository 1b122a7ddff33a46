"""What would people have said of all items, of which they rated a few and a measure all?

Prediction-powered inference: the measure's mean over many items, corrected by how far it was from
the people on the few. Right whatever the measure is; narrow where the measure is good.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

FEWEST = 10
"""Labels below which the slope λ is too rough for the interval to be trusted."""


FEWEST_UNRATED = 2


@dataclass(frozen=True, slots=True)
class Powered:
    """The corrected mean with its interval, the slope λ, and the plain interval's half over its.

    ``narrower`` above 1: as if so many times squared labels had been given.
    """

    value: float
    low: float
    high: float
    slope: float
    narrower: float


def powered_mean(
    labels: np.ndarray, predicted: np.ndarray, rest: np.ndarray, level: float = 0.95
) -> Powered | None:
    """The mean label over the population of items, by prediction-powered inference.

    ``θ = mean(Y) + λ·(mean(X_rest) − mean(X))`` with the slope that makes its variance smallest,
    ``λ = cov(Y, X) / ((1 + n/N) · var(X))``, so that X may have any unit and sign. The variance is
    ``var(Y − λX)/n + λ²·var(X_rest)/N``, with n − 2 degrees of freedom for the first, since λ was
    fitted; the ends are Student's t with as many.

    Args:
        labels: Y, (n,): what people said of the items that they rated.
        predicted: X, (n,): the measure's figure of the same items.
        rest: X_rest, (N,): its figure of the items nobody rated.
        level: nominal coverage.

    Returns:
        None where there are too few labels, no item without one, or no spread in either.

    Source: Angelopoulos, Bates, Fannjiang, Jordan & Zrnic, Science 382 (2023) 669-674; the slope:
    Angelopoulos, Duchi & Zrnic, PPI++ (2023), arXiv:2311.01453.

    """
    from scipy.stats import t

    y, x, r = (np.asarray(a, dtype=np.float64) for a in (labels, predicted, rest))
    n, N = y.size, r.size
    if n < FEWEST or N < FEWEST_UNRATED or np.ptp(y) == 0 or np.ptp(x) == 0:
        return None
    slope = np.cov(y, x)[0, 1] / ((1 + n / N) * np.concatenate([x, r]).var(ddof=1))
    value = y.mean() + slope * (r.mean() - x.mean())
    left = y - slope * x
    error = sqrt(((left - left.mean()) ** 2).sum() / (n - 2) / n + slope**2 * r.var(ddof=1) / N)
    half = t.ppf((1 + level) / 2, n - 2) * error
    plain = t.ppf((1 + level) / 2, n - 1) * y.std(ddof=1) / sqrt(n)
    if half == 0:
        return None
    return Powered(
        float(value), float(value - half), float(value + half), float(slope), float(plain / half)
    )
