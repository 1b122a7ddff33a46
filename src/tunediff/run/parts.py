"""Which items of a suite are asked in which way, and together with which others?

References and texts are scored, choices are scored, so are the openings of labelled prompts, and
prompts are answered; each way in parts of about equal cost. Within a way items go by cost and id,
so that the order of a file has no say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tunediff.errors import InputError, LengthError
from tunediff.items.openings import ENGLISH
from tunediff.pair.contract import Pair
from tunediff.run import asking
from tunediff.run.asking import Asked
from tunediff.values import Encoded, Generation, Item, Measure, Observation, Row, Suite

Form = Literal["raw", "chat"]
Way = Literal["scores", "choices", "openings", "replies"]

_CHOICE = "\x1f"  # between an item's id and the number of a choice; stored nowhere


Group = tuple[Item, tuple[Asked, ...]]
"""An item and what is asked of it: itself, or every choice or opening."""


@dataclass(frozen=True, slots=True)
class Part:
    """Items of one suite that are asked in one way, together."""

    suite: str
    way: Way
    groups: tuple[Group, ...]
    cost: int  # tokens
    left_out: tuple[tuple[Item, str], ...] = ()  # what cannot be asked, and why

    @property
    def asked(self) -> tuple[Asked, ...]:
        """All that is asked; an item's choices one behind the other."""
        return tuple(a for _, own in self.groups for a in own)


def item_line(suite: str, item: Item) -> dict[str, Any]:
    """The line of ``items.jsonl``: what later views and statistics need of an item."""
    names = ("id", "text", "prompt", "reply", "messages", "axis", "group")
    more = ("choices", "answer", "label", "category")
    constraints = item.constraints and [asdict(c) for c in item.constraints]
    openings = None if item.openings is None else asdict(item.openings)
    return {
        "suite": suite,
        **{name: getattr(item, name) for name in (*names, *more)},
        "constraints": constraints,
        "openings": openings,
    }


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


def left_out(part: Part, measures: Sequence[Measure], variant: str) -> list[Row]:
    """Rows that say why there is none."""
    return [
        asking.row_of(m.name, item, Observation(None, None, None, 0, reason), part.suite, variant)
        for item, reason in part.left_out
        for m in measures
    ]


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

    def encode(items: Sequence[Item]) -> Sequence[Encoded]:
        return pair.encode([formed(i) for i in items], max_length, allow_truncation)

    def prompts(items: Sequence[Item]) -> Sequence[Encoded]:
        return pair.prompts([formed(i) for i in items], max_length)

    names = [suite.name for suite in suites]
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"The suites {', '.join(map(repr, names)) or '(none)'} came; at least one is needed, "
            "and each name once.",
            "Give every suite a name of its own.",
        )
    for suite in suites:
        asking.require_own_ids(suite)
        parts: list[Part] = []
        if "scores" in pair.offers:
            whole = [(i, (i,)) for i in suite.items if i.prompt is None or i.reply is not None]
            parts += _parts(suite, "scores", whole, encode, allow_truncation, part_tokens)
            posed = [(i, _choices(i)) for i in suite.items if i.choices is not None]
            parts += _parts(suite, "choices", posed, encode, allow_truncation, part_tokens)
            labelled = [_opened(i) for i in suite.items if i.label is not None and i.text is None]
            parts += _parts(suite, "openings", labelled, encode, allow_truncation, part_tokens)
        if "replies" in pair.offers and generation is not None:
            prompted = [(i, (i,)) for i in suite.items if i.text is None]
            more = samples * generation.max_new_tokens
            parts += _parts(
                suite, "replies", prompted, prompts, allow_truncation, part_tokens, more
            )
        if not parts:
            raise InputError(
                f"Nothing of the suite {suite.name!r} can be asked of this pair, which offers "
                f"{', '.join(sorted(pair.offers))}.",
                "Give prompts where replies are compared, and texts or references where models "
                "are.",
            )
        yield from parts


def _choices(item: Item) -> tuple[Item, ...]:
    return _continued(item, item.choices or ())


def _opened(item: Item) -> tuple[Item, tuple[Item, ...]]:
    """A labelled item with its openings, and each of them as the beginning of its reply."""
    item = item if item.openings is not None else replace(item, openings=ENGLISH)
    assert item.openings is not None
    own = _continued(item, item.openings.all)
    return item, tuple(replace(one, begun=True) for one in own)


def _continued(item: Item, replies: Sequence[str]) -> tuple[Item, ...]:
    """Each reply as a continuation of the prompt, under an id of its own.

    Blanks at the prompt's end go to the choices: else those whose first token takes them in would
    be scored from another character than the rest.
    """
    if item.messages is not None:
        *before, last = item.messages
        return tuple(
            replace(
                item,
                id=f"{item.id}{_CHOICE}{k}",
                messages=(*before, {**last, "content": reply.strip()}),
            )
            for k, reply in enumerate(replies)
        )
    prompt = item.prompt or ""
    kept = prompt.rstrip()
    blanks = prompt[len(kept) :] if kept else ""
    return tuple(
        replace(
            item,
            id=f"{item.id}{_CHOICE}{k}",
            prompt=prompt.removesuffix(blanks),
            reply=blanks + reply,
        )
        for k, reply in enumerate(replies)
    )


def _parts(
    suite: Suite,
    way: Way,
    groups: Sequence[tuple[Item, tuple[Item, ...]]],
    read: Callable[[Sequence[Item]], Sequence[Encoded]],
    allow_truncation: bool,
    part_tokens: int,
    more: int = 0,
) -> list[Part]:
    """The groups of items that are asked together, as the pair reads them, cut into parts.

    Where texts may be cut, an item of which nothing is left to score, or a prompt that leaves no
    room for a reply, is left out with its reason; half a question or choice would be another one.
    What cannot be asked at any length is an error all the same.
    """
    left_out: list[tuple[Item, str]] = []
    try:
        flat = iter(read([one for _, own in groups for one in own]))
        asked = [(item, tuple(Asked(one, next(flat)) for one in own)) for item, own in groups]
    except LengthError:
        if not allow_truncation:
            raise
        asked = []
        for item, own in groups:
            try:
                both = zip(own, read(own), strict=True)
                asked.append((item, tuple(Asked(one, encoded) for one, encoded in both)))
            except LengthError as error:
                left_out.append((item, error.message))
    if way in ("choices", "openings"):
        what = "A choice" if way == "choices" else "An opening"
        faults = {item.id: _fault(what, own) for item, own in asked}
        left_out += [(item, why) for item, _ in asked if (why := faults[item.id]) is not None]
        asked = [group for group in asked if faults[group[0].id] is None]
    parts = list(_cut(suite.name, way, asked, part_tokens, more))
    if left_out:
        first = parts[0] if parts else Part(suite.name, way, (), 0)
        parts[:1] = [replace(first, left_out=tuple(left_out))]
    return parts


def _fault(what: str, own: Sequence[Asked]) -> str | None:
    """Why these continuations of one prompt cannot be held against each other."""
    if any(a.encoded.truncated for a in own):
        return f"{what} does not fit whole."
    if what == "An opening":
        # texts that differ may still have the same tokens, such as that of an unknown character
        every = [tuple(a.encoded.ids.tolist()) for a in own]
        begun = {ids[:n] for ids in every for n in range(1, len(ids))}
        if len(set(every)) < len(every) or begun.intersection(every):
            return "An opening's tokens are the beginning of another's, and would count twice."
    return None


def _cut(
    suite: str,
    way: Way,
    asked: Sequence[Group],
    part_tokens: int,
    more: int = 0,
) -> Iterator[Part]:
    """Parts of about ``part_tokens`` tokens; ``more``: those that each item adds."""

    def cost(group: Group) -> int:
        return sum(len(a.encoded.ids) + more for a in group[1])

    part: list[Group] = []
    spent = 0
    for group in sorted(asked, key=lambda g: (cost(g), g[0].id)):
        if part and spent + cost(group) > part_tokens:
            yield Part(suite, way, tuple(part), spent)
            part, spent = [], 0
        part.append(group)
        spent += cost(group)
    if part:
        yield Part(suite, way, tuple(part), spent)
