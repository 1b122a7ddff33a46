"""How far may a figure lie from what was measured, had other items been asked?

Groups of items are resampled with their sums and counts, never tokens: the tokens of one text are
not independent of each other. What was measured of these intervals' coverage stands in
``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from tunediff.errors import InputError, NumericsError, UsageError

FEWEST_GROUPS = 6
"""No interval below it. Six is also the fewest with which a two-sided sign-flip can fall under
.05 (2/2⁶ = .031; with five 2/2⁵ = .063)."""

FEWEST_EQUAL_GROUPS = 30
"""Equal effects in fewer groups say "no spread seen", not "no spread"."""

RESAMPLES = 9_999

TOO_FEW = "too few for an interval"
NO_SPREAD = "no spread seen"
TOO_SPARSE = "the spread lies in too few groups for an interval"

_CHUNK = 1 << 20  # draws held at a time: 8 MiB of indices and as much of weights
_KEPT = 1 << 23  # draws kept for the next interval: 64 MiB
_ROUNDING = 1e-12  # relative; a spread below it is float64 rounding of equal effects


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends, or neither and a ``note`` that says why; and the standard error.

    ``standard_error`` is None for one group, and for statistics that have none (BCa).
    """

    low: float | None
    high: float | None
    standard_error: float | None
    note: str = ""


def ratio_interval(
    sums: np.ndarray,
    counts: np.ndarray,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Bootstrap-t interval of θ = Σs / Σn over G groups; a mean is the case n = 1.

    ``se(θ) = √(G/(G−1) · Σ(s_g − θ·n_g)²) / Σn`` (linearisation). Each resample draws G groups
    with replacement and yields ``t* = (θ* − θ) / se*``; the ends are ``θ − t*_high · se`` and
    ``θ − t*_low · se``, with the order statistics number (R + 1)(1 − level)/2 from either side.

    A resample without spread (one group drawn G times, or groups with the same s/n) has se* = 0.
    It is neither dropped nor given a small number: its t* is ±∞ by the sign of θ* − θ (both ways
    where that is 0), which can only widen. Where that many of them reach the order statistic that
    an end needs, there is no interval, and the note says so.

    Args:
        sums: (G,) each group's sum, in the figure's unit times its count.
        counts: (G,) each group's count, > 0.
        seed: of the resampling; the same seed gives the same bits.
        level: nominal coverage.
        resamples: R.

    Raises:
        InputError: no group, or sums and counts of different lengths.
        NumericsError: a sum that is not finite, a count that is not positive.
        UsageError: too few resamples for the level.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), 12.5.

    """
    s, n = _checked(sums, counts)
    place = _order_statistic(level, resamples)
    G = s.size
    theta = s.sum() / n.sum()
    r = s - theta * n  # the residuals; resampling them keeps the squares free of cancellation
    equal = np.abs(r).max() <= _ROUNDING * np.abs(s).max()
    plain_error = np.sqrt(r @ r) / n.sum()  # G/(G−1) is the same in se and se*: it cancels in t*
    error = None if G < 2 else 0.0 if equal else float(plain_error * np.sqrt(G / (G - 1)))
    if G < FEWEST_GROUPS:
        return Interval(None, None, error, TOO_FEW)
    if equal:
        if G < FEWEST_EQUAL_GROUPS:
            return Interval(None, None, error, NO_SPREAD)
        return Interval(float(theta), float(theta), error)

    columns = np.stack([r, n, r * r, r * n, n * n], axis=1)  # (G, 5)
    drawn = np.concatenate([w @ columns for w in _weights(G, resamples, seed)])  # (R, 5)
    sum_r, sum_n, sum_rr, sum_rn, sum_nn = drawn.T
    shift = sum_r / sum_n  # θ* − θ
    squares = sum_rr - 2 * shift * sum_rn + shift**2 * sum_nn  # Σ(s_g − θ*·n_g)²
    flat = squares <= _ROUNDING * sum_rr
    t = np.divide(shift * sum_n, np.sqrt(np.where(flat, 1, squares)))
    t_low = np.sort(np.where(flat & (shift <= 0), -np.inf, t))[place - 1]
    t_high = np.sort(np.where(flat & (shift >= 0), np.inf, t))[resamples - place]
    if not np.isfinite([t_low, t_high]).all():
        return Interval(None, None, error, TOO_SPARSE)
    return Interval(float(theta - t_high * plain_error), float(theta - t_low * plain_error), error)


def bca_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: int,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    strata: Sequence[int] | None = None,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval, for figures that are no ratio of sums.

    Args:
        statistic: maps weights (R, G), how often each group was drawn, to (R,) figures. The
            root mean square of a metric, for example, is ``lambda w: np.sqrt(w @ s / (w @ n))``.
        groups: G.
        seed: of the resampling.
        level: nominal coverage.
        resamples: R.
        strata: sizes of consecutive groups, each lot resampled within itself; None: all are one.

    Raises:
        InputError: no group.
        NumericsError: a figure that is not finite.
        UsageError: too few resamples for the level.

    Source: Efron, Better bootstrap confidence intervals, JASA 82 (1987); acceleration from the
    jackknife over groups.

    """
    if groups < 1:
        raise InputError(f"An interval over {groups} groups was asked; at least one is needed.")
    _order_statistic(level, resamples)
    if groups < FEWEST_GROUPS:
        return Interval(None, None, None, TOO_FEW)
    everyone = np.ones((1, groups))
    figure = _finite(statistic(everyone))[0]
    without_one = _finite(statistic(everyone - np.eye(groups)))
    weights = _weights(groups, resamples, seed)
    if strata is not None:
        lots = [
            np.concatenate(list(_weights(size, resamples, seed + k)))
            for k, size in enumerate(strata)
        ]
        weights = iter([np.hstack(lots)])
    drawn = np.concatenate([_finite(statistic(w)) for w in weights])
    scale = max(abs(figure), np.abs(drawn).max())
    if np.ptp(drawn) <= _ROUNDING * scale:
        if groups < FEWEST_EQUAL_GROUPS:
            return Interval(None, None, None, NO_SPREAD)
        return Interval(float(figure), float(figure), None)

    normal = NormalDist()
    share_below = float(((drawn < figure).mean() + (drawn <= figure).mean()) / 2)
    if not 0 < share_below < 1:
        return Interval(None, None, None, "the figure lies outside all of its resamples")
    bias = normal.inv_cdf(share_below)
    pull = without_one.mean() - without_one  # (G,)
    spread = (pull @ pull) ** 1.5
    acceleration = float((pull**3).sum() / (6 * spread)) if spread > 0 else 0.0

    def end(share: float) -> float:
        z = bias + normal.inv_cdf(share)
        return float(np.quantile(drawn, normal.cdf(bias + z / (1 - acceleration * z))))

    tail = (1 - level) / 2
    return Interval(end(tail), end(1 - tail), None)


def percentile_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: int,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval, for figures that not every resample has.

    A correlation or an agreement is undefined where everything drawn is equal. Such a resample is
    neither dropped nor given a number: it counts as −∞ for the lower end and as +∞ for the upper
    one, which can only widen. Where an end needs one of them, there is no interval.

    Args:
        statistic: maps weights (R, G), how often each group was drawn, to (R,) figures, NaN where
            there is none.
        groups: G.
        seed: of the resampling.
        level: nominal coverage.
        resamples: R.

    Raises:
        InputError: no group.
        UsageError: too few resamples for the level.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), 13.3.

    """
    if groups < 1:
        raise InputError(f"An interval over {groups} groups was asked; at least one is needed.")
    place = _order_statistic(level, resamples)
    if groups < FEWEST_GROUPS:
        return Interval(None, None, None, TOO_FEW)
    drawn = np.concatenate([statistic(w) for w in _weights(groups, resamples, seed)])
    low = np.sort(np.where(np.isnan(drawn), -np.inf, drawn))[place - 1]
    high = np.sort(np.where(np.isnan(drawn), np.inf, drawn))[resamples - place]
    if not np.isfinite([low, high]).all():
        return Interval(None, None, None, TOO_SPARSE)
    if groups < FEWEST_EQUAL_GROUPS and np.nanmax(drawn) - np.nanmin(drawn) <= _ROUNDING:
        return Interval(None, None, None, NO_SPREAD)
    return Interval(float(low), float(high), None)


def _weights(groups: int, resamples: int, seed: int) -> Iterable[np.ndarray]:
    """How often each group was drawn: (rows, G) float64 at a time, ``resamples`` rows in all.

    Drawing takes longer than using what was drawn, and the measures of a suite have as many
    groups: the last draws are kept where they are small.
    """
    if groups * resamples > _KEPT:
        return _draws(groups, resamples, seed)
    return _kept_draws(groups, resamples, seed)


@lru_cache(maxsize=2)
def _kept_draws(groups: int, resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_draws(groups, resamples, seed))


def _draws(groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // groups)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, groups, size=(rows, groups))
        drawn += np.arange(rows)[:, None] * groups
        counted = np.bincount(drawn.ravel(), minlength=rows * groups)
        yield counted.reshape(rows, groups).astype(np.float64)


def _order_statistic(level: float, resamples: int) -> int:
    """Which of the sorted resamples, counted from 1 from either side, bounds the level."""
    if not 0 < level < 1:
        raise UsageError(f"A level of {level} came; it must lie between 0 and 1.")
    place = int((resamples + 1) * (1 - level) / 2 + 1e-9)
    if place < 1:
        raise UsageError(
            f"{resamples} resamples came for a level of {level}; "
            f"at least {int(np.ceil(2 / (1 - level) - 1e-9)) - 1} are needed.",
            "Ask for more resamples.",
        )
    return place


def _checked(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s, n = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if s.ndim != 1 or s.shape != n.shape or s.size == 0:
        raise InputError(
            f"Sums of shape {s.shape} and counts of shape {n.shape} came; "
            "one sum and one count for each of at least one group are needed."
        )
    if not (np.isfinite(s).all() and np.isfinite(n).all() and (n > 0).all()):
        raise NumericsError(
            "A sum that is not finite or a count that is not positive came to an estimate.",
            "Leave out observations that have a reason in place of an effect.",
        )
    return s, n


def _finite(figures: np.ndarray) -> np.ndarray:
    if not np.isfinite(figures).all():
        raise NumericsError("A resampled figure is not finite; every draw must have a figure.")
    return figures
