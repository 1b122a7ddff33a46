"""What is the effect, pooled over all items, and how sure is it?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import fsum, isfinite

import numpy as np

from tunediff.errors import InputError, NumericsError
from tunediff.findings.intervals import ratio_interval
from tunediff.findings.permutation import sign_flip
from tunediff.values import Estimate, Row

ItemKey = tuple[str, str, int]


def group_of(row: Row) -> str:
    """What is resampled together; groups of different suites are different ones."""
    return f"{row.suite}\x00{row.group}"


def item_of(row: Row) -> ItemKey:
    """What two models are compared on: an item, and which of its samples."""
    return row.suite, row.item, row.sample


def items_of(rows: Iterable[Row]) -> set[ItemKey]:
    """Those of several rows."""
    return set(map(item_of, rows))


def pool_groups(
    groups: Sequence[str], sums: Sequence[float], counts: Sequence[int]
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Add up observations by group: names (G,), sums (G,) float64 and counts (G,) int64.

    Sorted by name and added without rounding (``math.fsum``), so that the same observations in
    another order give the same bits.

    Raises:
        InputError: no observation, or lists of different lengths.
        NumericsError: a sum that is not finite.

    """
    if not (0 < len(groups) == len(sums) == len(counts)):
        raise InputError(
            f"{len(groups)} groups, {len(sums)} sums and {len(counts)} counts came; "
            "as many of each and at least one are needed."
        )
    if not all(isfinite(part) for part in sums):
        raise NumericsError(
            "A sum that is not finite came to an estimate.",
            "Leave out observations that have a reason in place of an effect.",
        )
    parts: defaultdict[str, list[float]] = defaultdict(list)
    totals: defaultdict[str, int] = defaultdict(int)
    for group, part, count in zip(groups, sums, counts, strict=True):
        parts[group].append(float(part))
        totals[group] += int(count)
    names = tuple(sorted(parts))
    pooled = np.array([fsum(parts[name]) for name in names], dtype=np.float64)
    return names, pooled, np.array([totals[name] for name in names], dtype=np.int64)


def estimate_ratio(
    groups: Sequence[str],
    sums: Sequence[float],
    counts: Sequence[int],
    *,
    signed: bool,
    seed: int,
    level: float = 0.95,
) -> Estimate:
    """Estimate Σ sums / Σ counts over all observations, resampling their groups.

    One entry an observation; those without an effect are left out by the caller. ``signed``: the
    effect may have either sign, and gets the p of the sign-flip test on the groups' sums (the same
    figure: Σn stays); a divergence has no p and is compared with its floor. ``more_groups`` stays
    None: it belongs to a decision's boundary (:func:`tunediff.findings.planning.more_groups`).

    Raises:
        InputError: no observation, or lists of different lengths.
        NumericsError: a sum that is not finite, or a group whose count is not positive.

    """
    _, s, n = pool_groups(groups, sums, counts)
    interval = ratio_interval(s, n, seed=seed, level=level)
    low = interval.low
    if not signed and low is not None and s.min() >= 0:
        low = max(low, 0.0)  # of few groups bootstrap-t may go below what no divergence can be
    return Estimate(
        effect=float(s.sum() / n.sum()),
        low=low,
        high=interval.high,
        p=sign_flip(s, seed=seed) if signed else None,
        groups=len(s),
        count=int(n.sum()),
        standard_error=interval.standard_error,
        note=interval.note,
    )
