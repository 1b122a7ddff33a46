"""How alike are several sampled replies to one prompt?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

from tunediff.measures.pairs import both_sides
from tunediff.measures.text import units
from tunediff.values import Item, Measure, Reply


def consistency(item: Item, replies: Sequence[Reply]) -> float | str:
    """Mean over all pairs of k sampled replies of the Jaccard similarity |A ∩ B| / |A ∪ B|.

    A and B: the sets of the two replies' words, lower case (neighbouring characters in pairs
    where a reply is written without spaces). Two replies of no words are alike: 1. Unit share. No
    direction: what is always the same may always be wrong. 0 means that both vary as much. Null
    for fewer than two samples. Jaccard (1901); the simplest similarity that no order can fool.
    """
    if len(replies) < 2:
        return "Consistency needs at least two samples of one prompt."
    sets = [_parts(reply.text) for reply in replies]
    pairs = list(combinations(sets, 2))
    return sum(len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs) / len(pairs)


def _parts(text: str) -> set[str]:
    parts, n = units(text.lower())
    if n == 4 or len(parts) == 1:
        return set(parts)
    return {a + b for a, b in pairwise(parts)}


CONSISTENCY: tuple[Measure, ...] = (
    Measure(
        "consistency",
        "share",
        0,
        "both vary as much from sample to sample",
        ("samples",),
        both_sides(consistency),
        margin=0.02,
    ),
)
