"""How many of the prompt's words does the reply take up?"""

from __future__ import annotations

import re

from tunediff.measures.pairs import both_sides
from tunediff.measures.text import asked
from tunediff.values import Item, Measure, Reply

_WORD = re.compile(r"[A-Za-z]+")
_SHORTEST = 4


def keyword_coverage(item: Item, reply: Reply) -> float | str:
    """|K ∩ W| / |K|: K the prompt's words of more than 3 letters, W the reply's words.

    Words are runs of [A-Za-z], lower case, each counted once. Unit share. No direction: a reply
    that only repeats its prompt has 1, and a right answer in one word has 0. An effect of 0 means
    that both take up as many. The seed's definition, which has 0 where K is empty; here it is null.
    """
    keywords = {word for word in _words(asked(item)) if len(word) >= _SHORTEST}
    if not keywords:
        return "The prompt has no word of more than three letters."
    return len(keywords & _words(reply.text)) / len(keywords)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


COVERAGE: tuple[Measure, ...] = (
    Measure(
        "keyword_coverage",
        "share",
        0,
        "both take up as many of the prompt's words",
        ("replies",),
        both_sides(keyword_coverage),
        margin=0.02,
    ),
)
