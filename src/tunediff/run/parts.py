"""Which items of a suite are asked in which way, and together with which others?

References and texts are scored, choices are scored, prompts are answered; each way in parts of
about equal cost. Within a way items go by cost and id, so that the order of a file has no say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tunediff.errors import InputError
from tunediff.pair.contract import Pair
from tunediff.run.asking import Asked
from tunediff.values import Generation, Item, Suite

Form = Literal["raw", "chat"]

_CHOICE = "\x1f"  # between an item's id and the number of a choice; stored nowhere


@dataclass(frozen=True, slots=True)
class Part:
    """Items of one suite that are asked in one way, together."""

    suite: str
    way: Literal["scores", "choices", "replies"]
    asked: tuple[Asked, ...]  # of choices: every choice of an item, one behind the other
    cost: int  # tokens
    left_out: tuple[tuple[Item, str], ...] = ()  # prompts that cannot be answered, and why


def item_line(suite: str, item: Item) -> dict[str, Any]:
    """The line of ``items.jsonl``: what later views and statistics need of an item."""
    names = ("id", "text", "prompt", "reply", "messages", "axis", "group")
    more = ("choices", "answer", "label", "category")
    return {"suite": suite, **{name: getattr(item, name) for name in (*names, *more)}}


def as_chat(item: Item) -> Item:
    """A prompt as a user's message, and its reference as the assistant's."""
    if item.prompt is None:
        return item
    talk = (
        {"role": "user", "content": item.prompt},
        {"role": "assistant", "content": (item.reply or "").strip()},
    )
    return replace(item, prompt=None, reply=None, messages=talk)


def plain(item: Item) -> Item:
    """An item as measures of replies see it: the prompt's text, and the reference's."""
    if item.messages is None:
        return item
    before = [m["content"] for m in item.messages[:-1] if m["role"] == "user"]
    prompt = before[-1] if before else ""
    return replace(item, messages=None, prompt=prompt, reply=item.messages[-1]["content"])


def plan(
    pair: Pair,
    suites: Sequence[Suite],
    generation: Generation | None,
    samples: int,
    form: Form,
    max_length: int | None,
    allow_truncation: bool,
    part_tokens: int,
) -> Iterator[Part]:
    """The parts of a comparison, whose arguments these are.

    Raises:
        InputError: an item that cannot be asked, or a suite of which nothing can.

    """
    formed: Callable[[Item], Item] = as_chat if form == "chat" else lambda item: item
    for suite in suites:
        parts: list[Part] = []
        if "scores" in pair.offers:
            whole = [i for i in suite.items if i.prompt is None or i.reply is not None]
            asked = _encoded(pair, whole, formed, max_length, allow_truncation)
            parts += _cut(suite.name, "scores", [(a,) for a in asked], part_tokens)
            posed = [i for i in suite.items if i.choices is not None]
            parts += _cut(
                suite.name,
                "choices",
                _choices(pair, posed, formed, max_length, allow_truncation),
                part_tokens,
            )
        if "replies" in pair.offers and generation is not None:
            prompted = [i for i in suite.items if i.text is None]
            prompts, left_out = _prompts(pair, prompted, formed, max_length, allow_truncation)
            cost = samples * generation.max_new_tokens
            replies = list(_cut(suite.name, "replies", [(a,) for a in prompts], part_tokens, cost))
            if left_out:
                first = replies[0] if replies else Part(suite.name, "replies", (), 0)
                replies[:1] = [replace(first, left_out=tuple(left_out))]
            parts += replies
        if not parts:
            raise InputError(
                f"Nothing of the suite {suite.name!r} can be asked of this pair, which offers "
                f"{', '.join(sorted(pair.offers))}.",
                "Give prompts where replies are compared, and texts or references where models "
                "are.",
            )
        yield from parts


def _encoded(
    pair: Pair,
    items: Sequence[Item],
    formed: Callable[[Item], Item],
    max_length: int | None,
    allow_truncation: bool,
) -> list[Asked]:
    found = pair.encode([formed(i) for i in items], max_length, allow_truncation)
    return [Asked(item, encoded) for item, encoded in zip(items, found, strict=True)]


def _prompts(
    pair: Pair,
    items: Sequence[Item],
    formed: Callable[[Item], Item],
    max_length: int | None,
    allow_truncation: bool,
) -> tuple[list[Asked], list[tuple[Item, str]]]:
    """The prompts as the pair reads them; where texts may be cut, a prompt that leaves no room for
    a reply is left out, since half a question is another one.
    """
    try:
        given = pair.prompts([formed(i) for i in items], max_length)
        return [Asked(plain(i), e) for i, e in zip(items, given, strict=True)], []
    except InputError:
        if not allow_truncation:
            raise
    asked, left_out = [], []
    for item in items:
        try:
            (encoded,) = pair.prompts([formed(item)], max_length)
            asked.append(Asked(plain(item), encoded))
        except InputError as error:
            left_out.append((plain(item), error.message))
    return asked, left_out


def _choices(
    pair: Pair,
    items: Sequence[Item],
    formed: Callable[[Item], Item],
    max_length: int | None,
    allow_truncation: bool,
) -> list[tuple[Asked, ...]]:
    """Every item's choices as continuations of its prompt, each under an id of its own."""
    single = [
        replace(item, id=f"{item.id}{_CHOICE}{k}", reply=choice)
        for item in items
        for k, choice in enumerate(item.choices or ())
    ]
    flat = iter(_encoded(pair, single, formed, max_length, allow_truncation))
    return [tuple(next(flat) for _ in item.choices or ()) for item in items]


def _cut(
    suite: str,
    way: Literal["scores", "choices", "replies"],
    asked: Sequence[tuple[Asked, ...]],
    part_tokens: int,
    more: int = 0,
) -> Iterator[Part]:
    """Parts of about ``part_tokens`` tokens; ``more``: those that each item adds."""

    def cost(group: Sequence[Asked]) -> int:
        return sum(len(a.encoded.ids) + more for a in group)

    part: list[Asked] = []
    spent = 0
    for group in sorted(asked, key=lambda g: (cost(g), g[0].item.id)):
        if part and spent + cost(group) > part_tokens:
            yield Part(suite, way, tuple(part), spent)
            part, spent = [], 0
        part += group
        spent += cost(group)
    if part:
        yield Part(suite, way, tuple(part), spent)


def by_item(asked: Sequence[Asked]) -> Iterator[tuple[Item, list[Asked]]]:
    """Items with their choices, which stand one behind the other."""
    start = 0
    while start < len(asked):
        item = asked[start].item
        own = list(asked[start : start + len(item.choices or ())])
        item = replace(item, id=item.id.rpartition(_CHOICE)[0])
        start += len(own)
        yield item, own
