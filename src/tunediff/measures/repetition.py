"""Does the reply repeat itself, and does it end in a loop?

Counted in whitespace words, compared as they stand; where a text is written without spaces, in
characters, and then n is 8 in place of 4 (:func:`~tunediff.measures.text.units`). All in time
linear in the reply, but for a logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from tunediff.measures.pairs import both_sides
from tunediff.measures.text import units
from tunediff.values import Item, Measure, Reply

_NO_WORDS = "The reply has no words."
COPIES = 3
MANY, SHORT = 10, 30  # copies and characters of a loop that is cut off early
LOOP = 50


def repetition(item: Item, reply: Reply) -> float | str:
    """Share of the reply's words that lie inside a 4-gram that has occurred before in the reply.

    Unit share; lower is better; 0 means that both repeat as much. The earlier occurrence may
    overlap, so that "a a a a a" has 4/5; the first occurrence itself is not counted. A reply of
    fewer than five words repeats nothing. A reply of no words is null.
    """
    parts, n = units(reply.text)
    if not parts:
        return _NO_WORDS
    seen: set[tuple[str, ...]] = set()
    covered, end = 0, 0  # words before ``end`` are counted already
    for start, gram in enumerate(_grams(parts, n)):
        if gram in seen:
            covered += start + n - max(start, end)
            end = start + n
        seen.add(gram)
    return covered / len(parts)


def longest_repeated_span(item: Item, reply: Reply) -> float | str:
    """The length of the longest run of words that occurs at least twice; the two may overlap.

    Unit words (characters where written without spaces); lower is better; 0 means that both
    repeat runs as long. A reply of no words is null.
    """
    parts, _ = units(reply.text)
    if not parts:
        return _NO_WORDS
    numbers: dict[str, int] = {}
    ranks = np.array([numbers.setdefault(part, len(numbers)) for part in parts])
    # levels[k][i]: a number that two positions share where the 2^k words from there are equal
    levels = [ranks]
    while _repeats(levels[-1]):
        half = 1 << (len(levels) - 1)
        if len(ranks) < 2 * half:
            break
        levels.append(_numbered(levels[-1], half))
    # whether a run of a length repeats falls once from yes to no: found bit by bit
    length, joined = 0, None  # joined: the ranks of runs of ``length``
    for k in reversed(range(len(levels))):
        size = 1 << k
        if joined is None:
            candidate = levels[k]
        else:
            fits = len(ranks) - length - size + 1
            if fits < 2:
                continue
            candidate = _ranked(joined[:fits], levels[k][length : length + fits])
        if _repeats(candidate):
            length, joined = length + size, candidate
    return float(length)


def distinct(n: int, item: Item, reply: Reply) -> float | str:
    """Distinct n-grams / n-grams of the reply's words.

    Unit share. No direction: it falls with length alone. 0 means that both vary as much. Null
    where there is no n-gram. Li et al. 2016, A Diversity-Promoting Objective Function; there
    over all replies together.
    """
    parts, _ = units(reply.text)
    grams = list(_grams(parts, n))
    if not grams:
        return f"The reply has fewer than {n} words." if n > 1 else _NO_WORDS
    return len(set(grams)) / len(grams)


def degenerate(item: Item, reply: Reply) -> float:
    """1 where the reply ends in a loop, else 0.

    A loop: the last 50 characters or more are one block at least three times over, the last copy
    perhaps cut short; or the last 30 or more are one with a letter or digit in it, ten times over.
    Unit share; lower is better; 0 means that both end in loops as often. Characters count as they
    stand, white space too. A loop that counts up ("1. a 2. a") is not found. An empty reply has no
    loop.
    """
    backwards = reply.text[::-1]
    matched = _prefix_matches(backwards, len(backwards) // COPIES)
    return float(
        any(
            p + matched[p] >= max(COPIES * p, LOOP)
            or (p + matched[p] >= max(MANY * p, SHORT) and any(map(str.isalnum, backwards[:p])))
            for p in range(1, len(backwards) // COPIES + 1)
        )
    )


def _grams(parts: Sequence[str], n: int) -> zip[tuple[str, ...]]:
    return zip(*(parts[i:] for i in range(n)), strict=False)


def _repeats(ranks: np.ndarray) -> bool:
    return len(np.unique(ranks)) < len(ranks)


def _numbered(ranks: np.ndarray, half: int) -> np.ndarray:
    return _ranked(ranks[:-half], ranks[half:])


def _ranked(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Equal numbers where both are equal."""
    keys = first.astype(np.int64) * (int(second.max()) + 1) + second
    return np.unique(keys, return_inverse=True)[1]


def _prefix_matches(text: str, last: int) -> list[int]:
    """For each i up to ``last``: how far the text from i on equals its beginning (Z function)."""
    matched = [0] * (last + 1)
    left = right = 0
    for i in range(1, last + 1):
        length = min(right - i, matched[i - left]) if i < right else 0
        while i + length < len(text) and text[length] == text[i + length]:
            length += 1
        if i + length > right:
            left, right = i, i + length
        matched[i] = length
    return matched


def _distinct(n: int) -> Measure:
    what = "words" if n == 1 else f"{n}-grams"
    zero = f"both have the same share of distinct {what}"
    function = both_sides(partial(distinct, n))
    return Measure(f"distinct_{n}", "share", 0, zero, ("replies",), function, margin=0.02)


REPETITION = Measure(
    "repetition",
    "share",
    -1,
    "both repeat themselves as much",
    ("replies",),
    both_sides(repetition),
    margin=0.02,
)
DEGENERATE = Measure(
    "degenerate",
    "share",
    -1,
    "both end in loops as often",
    ("replies",),
    both_sides(degenerate),
    margin=0.02,
)
REPETITIONS: tuple[Measure, ...] = (
    REPETITION,
    Measure(
        "longest_repeated_span",
        "words",
        -1,
        "both repeat runs as long",
        ("replies",),
        both_sides(longest_repeated_span),
    ),
    _distinct(1),
    _distinct(2),
    _distinct(3),
    DEGENERATE,
)
