"""Could the effects' signs have come by chance?"""

from __future__ import annotations

import numpy as np

from tunediff.errors import InputError, NumericsError

EXACT_GROUPS = 16
"""Up to here every pattern of signs is tried: 2¹⁵ of them, by symmetry."""

_CHUNK = 1 << 20
_ROUNDING = 1e-12  # relative to Σ|e|: sums that differ by less are ties, and ties count


def sign_flip(effects: np.ndarray, *, seed: int, resamples: int = 9_999) -> float:
    """Two-sided p of the sign-flip permutation test, with the statistic |Σ e_g|.

    If tuning did nothing, each group's effect was as likely to have the other sign. Up to
    ``EXACT_GROUPS`` effects other than 0, p is the share of all sign patterns whose |Σ ±e_g|
    reaches the observed one; beyond, ``(1 + hits) / (1 + resamples)`` of seeded random patterns.
    Effects of 0 have no sign to flip and change nothing; all 0 gives 1.0.

    Args:
        effects: (G,) one signed effect a group. For a ratio of sums these are the groups' sums,
            since flipping them moves Σs / Σn and leaves Σn.
        seed: of the random patterns.
        resamples: how many of them.

    Raises:
        InputError: no effect.
        NumericsError: an effect that is not finite.

    """
    e = np.asarray(effects, dtype=np.float64)
    if e.ndim != 1 or e.size == 0:
        raise InputError(f"Effects of shape {e.shape} came; one for each of some groups is needed.")
    if not np.isfinite(e).all():
        raise NumericsError("An effect that is not finite came to a sign-flip test.")
    e = e[e != 0]
    if e.size == 0:
        return 1.0
    reached = abs(e.sum()) - _ROUNDING * np.abs(e).sum()
    if e.size <= EXACT_GROUPS:
        patterns = np.arange(1 << (e.size - 1))[:, None] >> np.arange(e.size) & 1  # last sign: +
        return float((np.abs(_flipped(e, patterns)) >= reached).mean())
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // e.size)
    hits = 0
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        octets = rng.integers(0, 256, size=(rows, -(-e.size // 8)), dtype=np.uint8)
        patterns = np.unpackbits(octets, axis=1, count=e.size)
        hits += int((np.abs(_flipped(e, patterns)) >= reached).sum())
    return (1 + hits) / (1 + resamples)


def _flipped(e: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """Σ ±e_g for each row of 0 (keep) and 1 (flip): (rows,)."""
    return e.sum() - 2 * (patterns.astype(np.float64) @ e)
