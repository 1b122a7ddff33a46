"""How do the conversations among some items read, rendered in one go and looked up one by one?

Each call of the template's sandbox starts a process, so none is made for a single conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tunediff.pair.template import render_items, render_prompts
from tunediff.values import Item

_T = TypeVar("_T")


def renderer(
    template: str | None, items: Sequence[Item], **special: str | None
) -> Callable[[Item], tuple[str, str]]:
    """How each of these items with messages reads, as :func:`render_items` has it."""
    return _looked_up(render_items, template, items, special)


def prompt_renderer(
    template: str | None, items: Sequence[Item], **special: str | None
) -> Callable[[Item], str]:
    """What stands before the reply to each, as :func:`render_prompts` has it."""
    return _looked_up(render_prompts, template, items, special)


def _looked_up(
    render: Callable[..., list[_T]],
    template: str | None,
    items: Sequence[Item],
    special: Mapping[str, str | None],
) -> Callable[[Item], _T]:
    talks = [item for item in items if item.messages is not None]
    rendered = render(template, talks, **special) if talks else []
    texts = dict(zip((item.id for item in talks), rendered, strict=True))
    return lambda item: texts[item.id]
