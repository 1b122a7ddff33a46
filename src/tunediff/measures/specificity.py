"""How much of the reply is particular: numbers, names, code?

Counts per whitespace word, without weights; the three parts add up to ``specificity``. What stands
inside code is not counted again. None has a direction: a wrong number is as specific as a right
one. A reply of no words is null.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from tunediff.measures.pairs import both_sides
from tunediff.measures.text import without_code
from tunediff.values import Item, Measure, Reply

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(r"[^\W\d_]+(?:['’.-][^\W\d_]+)*")
_OF_SELF = ("I", "I'", "I’")  # and its contractions
_SENTENCE_BEGINS = frozenset(".!?:…\n\r\u2028\u2029。！？")  # anywhere between two words


def numbers(text: str) -> int:
    """Runs of digits outside code; 1,234.50 and 12:30 are one each."""
    return sum(1 for _ in _NUMBER.finditer(without_code(text)[0]))


def names(text: str) -> int:
    """Runs of capitalised words outside code that do not begin a sentence or a line.

    "in New York" holds one name. The first word of a sentence is capitalised whatever it is, so
    it is never counted, and neither are "I" and its contractions. An estimate, alike for both.
    """
    rest, _ = without_code(text)
    found, end, inside = 0, None, False
    for word in _WORD.finditer(rest):
        begins = end is None or not _SENTENCE_BEGINS.isdisjoint(rest[end : word.start()])
        name = word[0][0].isupper() and not begins and word[0][:2] not in _OF_SELF
        joined = inside and not rest[end : word.start()].strip()
        found += name and not joined
        end, inside = word.end(), name
    return found


def code_spans(text: str) -> int:
    """``` blocks and `inline` spans."""
    return without_code(text)[1]


def all_parts(text: str) -> int:
    """Numbers, names and code spans."""
    return numbers(text) + names(text) + code_spans(text)


def _per_word(count: Callable[[str], int], item: Item, reply: Reply) -> float | str:
    """count(reply) / whitespace words; unit per word; 0: both are as specific."""
    words = len(reply.text.split())
    return count(reply.text) / words if words else "The reply has no words."


def _measure(name: str, count: Callable[[str], int], zero: str) -> Measure:
    function = both_sides(partial(_per_word, count))
    return Measure(name, "per word", 0, zero, ("replies",), function)


SPECIFICITY: tuple[Measure, ...] = (
    _measure("specificity", all_parts, "both are as specific"),
    _measure("specificity_numbers", numbers, "both hold as many numbers per word"),
    _measure("specificity_names", names, "both hold as many names per word"),
    _measure("specificity_code", code_spans, "both hold as many code spans per word"),
)
