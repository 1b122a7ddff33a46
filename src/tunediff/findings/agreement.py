"""Do raters say the same of the same, more than chance would have them?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Scale = Literal["nominal", "ordinal"]


def coincidences(counts: np.ndarray) -> np.ndarray:
    """How often two ratings of the same unit meet, by their values: (U, V, V).

    ``counts``: (U, V), how many raters gave unit u the value v. With m_u ratings of the unit the
    entry is ``(n_uv·n_uw − [v = w]·n_uv) / (m_u − 1)``; a unit rated once has no pair, and zeros.
    """
    n = np.asarray(counts, dtype=np.float64)
    pairs = n[:, :, None] * n[:, None, :] - np.eye(n.shape[1]) * n[:, None, :]
    return pairs / np.maximum(n.sum(axis=1) - 1, 1)[:, None, None]


def krippendorff_alpha(met: np.ndarray, scale: Scale) -> np.ndarray:
    """Krippendorff's alpha = 1 − observed / expected disagreement, of coincidences (..., V, V).

    With o_vw the coincidences summed over units, n_v = Σ_w o_vw and n = Σ n_v:
    ``1 − (n − 1) · Σ o_vw δ²_vw / Σ n_v n_w δ²_vw``. δ² is [v ≠ w] on a nominal scale; on an
    ordinal one the square of the ratings that lie between, ``Σ_(g from v to w) n_g − (n_v+n_w)/2``.
    1: perfect agreement; 0: that of chance. NaN where all ratings are equal, or no two meet.

    Source: Krippendorff, Content Analysis (2004), chapter 11.

    """
    n_v = met.sum(axis=-1)
    n = n_v.sum(axis=-1)
    if scale == "nominal":
        delta = 1 - np.eye(met.shape[-1])
    else:
        middle = np.cumsum(n_v, axis=-1) - n_v / 2
        delta = (middle[..., :, None] - middle[..., None, :]) ** 2
    observed = (met * delta).sum(axis=(-2, -1))
    expected = (n_v[..., :, None] * n_v[..., None, :] * delta).sum(axis=(-2, -1))
    known = expected > 0
    return np.where(known, 1 - (n - 1) * observed / np.where(known, expected, 1), np.nan)


def cohen_kappa(
    one: Sequence[int], other: Sequence[int], values: int, scale: Scale
) -> float | None:
    """Cohen's kappa of two raters on the items that both rated: 1 − observed / expected.

    Ratings are 0 … values − 1. Disagreement is [v ≠ w] on a nominal scale, (v − w)² on an ordinal
    one (quadratic weights). None where chance alone would agree always.

    Source: Cohen, Educational and Psychological Measurement 20 (1960) 37-46; Psychological Bulletin
    70 (1968) 213-220.

    """
    if not one:
        return None
    table = np.zeros((values, values))
    np.add.at(table, (list(one), list(other)), 1)
    v = np.arange(values)
    apart = (v[:, None] - v) ** 2 if scale == "ordinal" else v[:, None] != v
    expected = (np.outer(table.sum(axis=1), table.sum(axis=0)) * apart).sum() / len(one)
    return None if expected == 0 else float(1 - (table * apart).sum() / expected)
