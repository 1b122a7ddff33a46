"""What is left of a p, where several questions were asked at once?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunediff.errors import InputError


def holm(ps: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p of Holm's step-down procedure, in the order given.

    With the p sorted from the smallest, ``max over j ≤ i of (K − j + 1)·p_(j)``, at most 1. Calling
    those below α keeps the chance of even one false call at α, whatever their dependence.

    Raises:
        InputError: a p outside 0 … 1.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.

    """
    p, order = _ordered(ps)
    stepped = np.maximum.accumulate(np.arange(p.size, 0, -1) * p[order])
    return _in_place(stepped, order)


def benjamini_hochberg(ps: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p of Benjamini and Hochberg's step-up procedure, in the order given.

    With the p sorted from the smallest, ``min over j ≥ i of (K / j)·p_(j)``, at most 1. Calling
    those below α keeps the expected share of false ones among the calls at α (for independent or
    positively dependent p). For exploratory lists, and to be labelled so.

    Raises:
        InputError: a p outside 0 … 1.

    Source: Benjamini & Hochberg, Journal of the Royal Statistical Society B 57 (1995) 289-300.

    """
    p, order = _ordered(ps)
    stepped = p.size / np.arange(1, p.size + 1) * p[order]
    return _in_place(np.minimum.accumulate(stepped[::-1])[::-1], order)


def _ordered(ps: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(ps, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"p values {list(ps)} came; each must lie between 0 and 1.")
    return p, np.argsort(p, kind="stable")


def _in_place(stepped: np.ndarray, order: np.ndarray) -> tuple[float, ...]:
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1)
    return tuple(float(p) for p in adjusted)
