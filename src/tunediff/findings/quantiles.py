"""How do a token metric's values spread, beyond their mean?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunediff.errors import InputError, NumericsError

KL_PERCENTILES = ("max", "99.9", "99", "95", "90", "50", "10", "5", "1", "0.1", "min")
DELTA_P_PERCENTILES = (*KL_PERCENTILES[:5], "75", "50", "25", *KL_PERCENTILES[6:])

_ENDS = {"max": 100.0, "min": 0.0}


def percentiles(values: np.ndarray, which: Sequence[str]) -> dict[str, float]:
    """Percentiles by name ("max", "99.9" … "min"), in the order asked, interpolated linearly.

    Args:
        values: any shape, at least one; taken as float64.
        which: "max", "min", or a percentage as text.

    Raises:
        InputError: no value.
        NumericsError: a value that is not finite.

    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    if flat.size == 0:
        raise InputError("Percentiles of no value were asked; at least one is needed.")
    if not np.isfinite(flat).all():
        raise NumericsError("A value that is not finite came to percentiles.")
    shares = [_ENDS[name] if name in _ENDS else float(name) for name in which]
    found = np.percentile(flat, shares)
    return {name: float(value) for name, value in zip(which, found, strict=True)}
