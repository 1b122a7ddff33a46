"""Do two figures rise and fall together over the items?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunediff.findings.intervals import Interval, percentile_interval


def rank_correlation(
    x: np.ndarray, y: np.ndarray, groups: Sequence[str], *, seed: int, level: float = 0.95
) -> tuple[float, Interval]:
    """Spearman's ρ of x and y, (n,), with a percentile bootstrap interval over groups of items.

    In each resample the items drawn are ranked anew, equal ones sharing their mean rank, an item
    that was drawn twice among them.
    """
    names = sorted(set(groups))
    member = np.array([[group == name for group in groups] for name in names], dtype=np.float64)
    less = [(v[:, None] < v) + (v[:, None] == v) / 2 for v in (x, y)]  # (n, n): of i over j

    def rho(drawn: np.ndarray) -> np.ndarray:
        w = drawn @ member  # (R, n)
        ranks = [w @ part for part in less]  # but for a constant
        n = w.sum(axis=1, keepdims=True)
        a, b = (rank - (w * rank).sum(axis=1, keepdims=True) / n for rank in ranks)
        both, one, other = ((w * p).sum(axis=1) for p in (a * b, a * a, b * b))
        spread = np.sqrt(one * other)
        known = spread > 1e-9 * n[:, 0] ** 3  # ranks are multiples of ½: less is rounding
        return np.where(known, both / np.where(known, spread, 1), np.nan)

    figure = float(rho(np.ones((1, len(names))))[0])
    return figure, percentile_interval(rho, len(names), seed=seed, level=level)
