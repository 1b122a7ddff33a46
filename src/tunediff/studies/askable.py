"""Can everything be asked that will be asked, before hours of training?

What ``compare`` asks of a pair follows from base's tokenizer, template and context alone. So the
parts of a comparison can be planned while there is no tuned side yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from tunediff.pair import encoding
from tunediff.pair.contract import Pair
from tunediff.pair.rendering import prompt_renderer, renderer
from tunediff.pair.template import find_template
from tunediff.run.parts import plan
from tunediff.values import Encoded, Generation, Item, Suite
from tunediff.weights.checkpoint import Checkpoint


def require_askable(
    base: Path,
    suites: Sequence[Suite],
    template: str,
    generation: Generation | None,
    allow_truncation: bool,
) -> None:
    """Plan a comparison with base, and throw the plan away.

    Args:
        base: its folder.
        suites: what is asked.
        template: raw, chat, or a file.
        generation: None: no replies are made.
        allow_truncation: as in ``compare``.

    Raises:
        InputError, UsageError: what ``compare`` would raise.

    """
    from tunediff.training.data import template_source

    source = template_source(template, find_template(base))
    reader = cast("Pair", _Reader(base, source))  # no more of a pair is asked for
    form = "raw" if template == "raw" else "chat"
    for _ in plan(reader, suites, generation, 1, form, None, allow_truncation, part_tokens=8192):
        pass


class _Reader:
    """What a pair of this base makes of items, without its weights."""

    offers = frozenset({"scores", "nll", "replies"})

    def __init__(self, base: Path, template: str | None) -> None:
        from tunediff.pair.hf_load import HfTokens, context_length, full_config

        self.tokens, self.template = HfTokens(base), template
        self.context = context_length(full_config(Checkpoint.open(base)))

    def encode(
        self, items: Sequence[Item], max_length: int | None, allow_truncation: bool
    ) -> list[Encoded]:
        render = renderer(self.template, items, **self.tokens.special)
        return [
            encoding.encode(i, self.tokens, render, self.context, allow_truncation) for i in items
        ]

    def prompts(self, items: Sequence[Item], max_length: int | None) -> list[Encoded]:
        render = prompt_renderer(self.template, items, **self.tokens.special)
        room = None if self.context is None else self.context - 1
        return [encoding.prompt(i, self.tokens, render, room) for i in items]
