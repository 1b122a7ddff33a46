"""How long is the reply?"""

from __future__ import annotations

from tunediff.measures.pairs import both_sides
from tunediff.values import Item, Measure, Reply


def words(item: Item, reply: Reply) -> float:
    """The reply's whitespace words.

    Unit words; no direction, since longer is not better; 0 means that both are equally long. The
    seed's ``base_len`` and ``tuned_len``.
    """
    return float(len(reply.text.split()))


def tokens(item: Item, reply: Reply) -> float | str:
    """The generated token ids up to the end token, which is not one of them; no padding.

    Unit tokens; no direction; 0 means that both are equally long.
    """
    if reply.ids is None:
        return "Only the text of the reply is known, not its tokens."
    return float(len(reply.ids))


_LENGTH = "both replies are equally long"
LENGTHS: tuple[Measure, ...] = (
    Measure("words", "words", 0, _LENGTH, ("replies",), both_sides(words)),
    Measure("tokens", "tokens", 0, _LENGTH, ("replies",), both_sides(tokens)),
)
