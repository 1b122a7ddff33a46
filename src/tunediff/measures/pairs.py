"""How does a figure that one reply has alone become an observation of the pair?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tunediff.values import Item, Observation

OfOne = Callable[[Item, Any], float | str]
"""The figure of one side, or a sentence that says why there is none."""


def both_sides(of_one: OfOne) -> Callable[[Item, Any, Any], Observation]:
    """The function of a :class:`~tunediff.values.Measure`: effect = tuned − base, count 1.

    ``of_one(item, side)`` is called for either side, a Reply or a sequence of them. Where one
    side has no figure there is no effect, and the reason names the side.
    """
    return partial(_observe, of_one)


def none(reason: str) -> Observation:
    """No observation, and why."""
    return Observation(None, None, None, 0, reason)


def _observe(of_one: OfOne, item: Item, base: Any, tuned: Any) -> Observation:
    b, t = of_one(item, base), of_one(item, tuned)
    if isinstance(b, str) or isinstance(t, str):
        return none(_reason(b, t))
    return Observation(b, t, t - b, 1)


def _reason(base: float | str, tuned: float | str) -> str:
    if isinstance(base, str) and base == tuned:
        return base
    sides = {"Base side": base, "Tuned side": tuned}
    return " ".join(
        f"{side}: {why[:1].lower()}{why[1:]}" for side, why in sides.items() if isinstance(why, str)
    )
