"""Which run does ``tunediff check`` make, before anything is said of it?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunediff.measures import BITS_PER_BYTE, BUILT_IN
from tunediff.pair.open import open_pair
from tunediff.run.measuring import measure
from tunediff.run.store import Run
from tunediff.studies.variants import weigh_pair
from tunediff.values import Suite


def measure_check(
    base: str,
    tuned: str,
    suite: Suite,
    out: Path,
    *,
    seed: int = 0,
    max_length: int | None = None,
    allow_truncation: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **opening: Any,
) -> Run:
    """Open the pair, weigh the change, and measure the suite.

    Args:
        base: as ``open_pair`` takes it.
        tuned: likewise.
        suite: what is asked.
        out: the run folder.
        seed: of the resampling; recorded.
        max_length: at most so many token ids a text; None: the model's context.
        allow_truncation: keep the first ids of a longer text.
        progress: called with the tokens done and their total.
        opening: the other options of ``open_pair``.

    """
    bytes_only = opening.get("bits_per_byte_only", False)
    pair = open_pair(base, tuned, **opening)
    weights = weigh_pair(base, tuned, opening) if "weights" in pair.offers else None
    return measure(
        pair,
        suite,
        out=out,
        measures=(BITS_PER_BYTE,) if bytes_only else BUILT_IN,
        seed=seed,
        max_length=max_length,
        allow_truncation=allow_truncation,
        progress=progress,
        weights=weights,
    )
